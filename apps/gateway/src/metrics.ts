// What the gateway counts: plain numbers where it is busy, read when somebody scrapes. No label has a value that a client
// chose: no job ids, addresses or subjects.
import { readFileSync } from 'node:fs'
import { CLOSE } from '@jobs/protocol'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** Counters by one label. */
type Counts = Record<string, number>

export const bump = (counts: Counts, value: string): void => {
  counts[value] = (counts[value] ?? 0) + 1
}

/** Since the process began. */
export const counts = {
  opened: 0,
  /** By close code. */
  closed: {} as Counts,
  /** By reason, before a socket was one. */
  refused: {
    ...{ connections: 0, address: 0, address_rate: 0, rate: 0, dropped: 0, draining: 0 },
  } as Counts,
  /** Rooms that missed events, by how that was noticed. */
  gaps: { number: 0, reconnect: 0 } as Counts,
  /** Reads of a stream after which a room's watchers were whole again. */
  repaired: 0,
  resets: { trimmed: 0, diverged: 0, ahead: 0, too_far: 0, redis_recovered: 0 } as Counts,
  /** Events that were folded into later ones. */
  conflated: 0,
  reads: { snapshot: 0, replay: 0 } as Counts,
  /** Watchers that were served by a read of another. */
  coalesced: 0,
}

const CODES = new Set<number>(Object.values(CLOSE).map(({ code }) => code))

/** The client may send any code. */
export const countClose = (code: number): void =>
  bump(counts.closed, CODES.has(code) || (code >= 1000 && code <= 1014) ? String(code) : 'other')

/** Seconds from Redis' clock at the transition to the socket; observed now and then. */
export const lag = new Histogram({
  name: 'jobs_gateway_publish_to_socket_seconds',
  help: 'From a transition, by the clock of Redis, until its event was handed to the sockets; sampled.',
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  registers: [],
})

/** What is looked at when somebody scrapes. */
export interface Gauges {
  sockets(): number
  handshakes(): number
  rooms(): number
  watchers(): number
  queuedBytes(): number
  /** Seconds since the last probe of Redis came through; per whichever connection is the worst. */
  probeAge(): number
  probeRoundTrip(): number
  ready(): boolean
}

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

/** The text of `/metrics`. */
export const gatewayMetrics = (gauges: Gauges) => {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  registry.registerMetric(lag)

  const counter = (name: string, help: string, read: () => number) =>
    new Counter({
      ...{ name: `jobs_gateway_${name}`, help, registers },
      collect() {
        this.reset()
        this.inc(read())
      },
    })
  const counterBy = (label: string, name: string, help: string, values: Counts) =>
    new Counter({
      ...{ name: `jobs_gateway_${name}`, help, registers, labelNames: [label] },
      collect() {
        this.reset()
        for (const [value, count] of Object.entries(values)) this.inc({ [label]: value }, count)
      },
    })
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      ...{ name: `jobs_gateway_${name}`, help, registers },
      collect() {
        this.set(read())
      },
    })

  new Gauge({
    ...{ name: 'jobs_gateway_build_info', help: 'Always 1; its labels tell what runs.', registers },
    labelNames: ['version', 'node'],
  }).set({ version, node: process.version }, 1)
  gauge('ready', '1 while /readyz is green.', () => Number(gauges.ready()))
  gauge('sockets', 'Open sockets.', gauges.sockets)
  gauge('handshakes', 'TCP connections that are no sockets yet.', gauges.handshakes)
  gauge('rooms', 'Jobs and tags that are watched, or were a few seconds ago.', gauges.rooms)
  gauge('watchers', 'Subscriptions of sockets to jobs.', gauges.watchers)
  gauge('queued_bytes', 'Bytes that sockets have not taken yet.', gauges.queuedBytes)
  gauge('probe_age_seconds', 'Since a probe came back from Redis through the subscription.', gauges.probeAge)
  gauge('probe_round_trip_seconds', 'Of the last probe.', gauges.probeRoundTrip)
  counter('opened_total', 'Sockets accepted.', () => counts.opened)
  counterBy('code', 'closed_total', 'Sockets closed, by close code.', counts.closed)
  counterBy('reason', 'refused_total', 'Requests and connections refused before a socket.', counts.refused)
  counterBy('cause', 'gaps_total', 'Gaps found in what rooms heard.', counts.gaps)
  counter('repairs_total', 'Rooms made whole again from the stream.', () => counts.repaired)
  counterBy('reason', 'resets_total', 'Watchers told reset.', counts.resets)
  counter('conflated_total', 'Events folded into later ones.', () => counts.conflated)
  counterBy('kind', 'reads_total', 'Reads of jobs from Redis for watchers.', counts.reads)
  counter('coalesced_total', 'Watchers served by the read of another.', () => counts.coalesced)
  return { contentType: registry.contentType, text: () => registry.metrics() }
}
