-- Append a log line (a JSON string) to the stream; the hash keeps only its position.
return report(id, fence, op, 'log', line)
