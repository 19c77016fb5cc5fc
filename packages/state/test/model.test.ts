// Random moves, fences and time over a few jobs, beside a model of a dozen lines: outcomes agree, every stream has no
// holes and folds to its hash.
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { isTerminal, MOVES, type MoveName, type State } from '../src/schema/machine.ts'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

interface Model {
  state: State | null
  fence: string
  cancel: boolean
}

type Step = { job: number; move: Exclude<MoveName, 'enqueue'>; stale: boolean; delayMs: number }

const step: fc.Arbitrary<Step> = fc.record({
  job: fc.nat({ max: 2 }),
  move: fc.constantFrom(
    ...([
      'claim',
      'heartbeat',
      'progress',
      'log',
      'checkpoint',
      'complete',
      'retry',
      'fail',
      'release',
      'abort',
      'cancel',
      'rerun',
      'reschedule',
      'promote',
      'reap',
    ] as const),
    // What makes jobs go round is drawn more often.
    ...(['claim', 'claim', 'claim', 'progress', 'retry', 'promote', 'reap'] as const),
  ),
  stale: fc.boolean(),
  delayMs: fc.constantFrom(0, 1, 3_600_000),
})

/** The state a legal move leads to, by the rules of the table. */
const next = (model: Model, { move, delayMs }: Step): State => {
  const back = (state: State): State => (model.cancel ? 'CANCELLED' : state)
  switch (move) {
    case 'claim':
      return 'PROCESSING'
    case 'complete':
      return 'COMPLETED'
    case 'fail':
      return 'FAILED'
    case 'abort':
      return 'CANCELLED'
    case 'retry':
      return back(delayMs > 0 ? 'SCHEDULED' : 'QUEUED')
    case 'release':
      return back('QUEUED')
    case 'reschedule':
      return delayMs > 0 ? 'SCHEDULED' : 'QUEUED'
    case 'rerun':
      return 'QUEUED'
    case 'cancel':
      return model.state === 'PROCESSING' ? 'PROCESSING' : 'CANCELLED'
    default:
      return model.state as State
  }
}

it('holds for any sequence of moves', async () => {
  const { transitions, link } = h.jobs
  const [keys] = transitions.keys
  if (!keys) throw new Error('no partition')
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      const ids = await Promise.all([h.enqueue(), h.enqueue({ delayMs: 1 }), h.enqueue({ maxCrashes: 0 })])
      const models: Model[] = ids.map((_, i) => ({
        state: i === 1 ? 'SCHEDULED' : 'QUEUED',
        fence: '',
        cancel: false,
      }))
      let op = 0
      for (const each of steps) {
        const { job: index, move, stale, delayMs } = each
        const id = ids[index] as string
        const model = models[index] as Model
        if (move === 'promote' || move === 'reap') {
          await pass(move, id)
          // A pass may move any of them: the model follows what Redis says, the fold below judges it.
          for (const [i, other] of ids.entries()) {
            const now = await h.jobs.get(other)
            const known = models[i] as Model
            if (now?.state !== known.state) {
              const row = MOVES[move]
              expect(row.from).toContain(known.state)
              expect(row.to).toContain(now?.state)
              known.state = now?.state ?? null
            }
          }
          continue
        }
        const usesFence = MOVES[move].by === 'worker' && move !== 'claim'
        const held = { id, fence: usesFence && stale ? `${model.fence}x` : model.fence }
        const before = await h.jobs.get(id)
        const outcome = await fire(each, held)
        const legal =
          (MOVES[move].from as readonly State[]).includes(model.state as State) &&
          !(usesFence && (stale || model.fence === '')) &&
          !(move === 'abort' && !model.cancel)
        if (!legal) {
          if (outcome.ok) expect(outcome.repeat).toBe(true)
          expect(await h.jobs.get(id)).toEqual(before)
          continue
        }
        expect(outcome.ok).toBe(true)
        model.state = next(model, each)
        if (move === 'cancel') model.cancel = true
        if (move === 'rerun') model.cancel = false
        expect((await h.jobs.get(id))?.state).toBe(model.state)

        async function fire(step: Step, attempt: { id: string; fence: string }) {
          switch (step.move) {
            case 'claim': {
              if (model.state !== 'QUEUED') return h.fire('claim', attempt)
              const taken = await h.claim(id)
              model.fence = taken.fence
              return { ok: true as const, cursor: '', state: 'PROCESSING' as State, repeat: false }
            }
            case 'progress':
              return transitions.progress(attempt, ++op, `{"done":${op}}`)
            case 'log':
              return transitions.log(attempt, ++op, `line ${op}`)
            case 'retry':
              return transitions.retry(attempt, '{"name":"Error","message":"again"}', delayMs)
            case 'reschedule':
              return transitions.reschedule(id, delayMs)
            default:
              return h.fire(step.move, attempt)
          }
        }
      }
      for (const [i, id] of ids.entries()) {
        const events = await h.history(id)
        expect(events.map((event) => event.seq)).toEqual(events.map((_, n) => n + 1))
        expect(await h.folded(id)).toEqual(await h.jobs.get(id))
        const attempts = events.map((event) => event.attempt ?? 0)
        expect(attempts).toEqual([...attempts].sort((a, b) => a - b))
        const ended = isTerminal(models[i]?.state as State)
        expect((await link.call('PTTL', keys.job(id))) === -1).toBe(!ended)
      }
    }),
    {
      numRuns: Number(process.env.MODEL_RUNS ?? 100),
      seed: process.env.MODEL_SEED ? Number(process.env.MODEL_SEED) : Date.now(),
    },
  )

  async function pass(move: 'promote' | 'reap', id: string) {
    if (!keys) return
    if (move === 'promote') await transitions.promote(keys, 100)
    else {
      await h.lapse(id)
      await transitions.reap(keys, 'any', {
        cursor: '0-0',
        count: 100,
        minIdleMs: 0,
        // No amnesty: every sweep is the first after a silence.
        maxGapMs: 0,
        amnesty: false,
      })
    }
  }
})
