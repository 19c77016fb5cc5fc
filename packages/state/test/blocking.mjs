// A program of a user: its handler blocks the event loop for some leases, and says whether a beat stands at the end.
const { REDIS_URL: url, NAMESPACE: namespace, STATE } = process.env
const { connectJobs, defineJob, Worker } = await import(STATE)
const jobs = await connectJobs({ url, namespace, onFinding: () => undefined })
const blocking = defineJob({ name: 'blocking' })
const worker = new Worker(
  jobs,
  blocking,
  async ({ id }) => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_500)
    return jobs.link.call('EXISTS', jobs.transitions.keysFor(id).heartbeat(id))
  },
  { leaseMs: 600 },
)
worker.on('error', ({ code }) => console.log(`error ${code}`))
await worker.start()
const { id } = await jobs.enqueue(blocking, null)
const { result, attempt } = await jobs.wait(id)
console.log(`beaten ${result} attempt ${attempt}`)
await worker.stop()
await jobs.close()
