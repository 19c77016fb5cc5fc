-- Replace the attempt's progress.
return report(id, fence, op, 'progress', progress)
