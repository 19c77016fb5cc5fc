// Spans of what clients ask for, to whatever OpenTelemetry SDK the operator has loaded into this process. Off unless an OTEL_…
// variable is set: then not even its API is looked for, and a call costs a comparison.
import type { IncomingHttpHeaders } from 'node:http'
import type { Span } from '@opentelemetry/api'

/** The API is a singleton of the process: that of the SDK that was loaded before. */
const apiOf = async (env: NodeJS.ProcessEnv) => {
  if (env.OTEL_SDK_DISABLED === 'true' || !Object.keys(env).some((name) => name.startsWith('OTEL_')))
    return undefined
  // It is there where an SDK is.
  return import('@opentelemetry/api').catch(() => undefined)
}
const api = await apiOf(process.env)

interface Traced {
  job: string
  /** Of the request; its `traceparent` says whose part this is. */
  headers?: IncomingHttpHeaders
}

/** Runs it, within a span where somebody collects them. No span has a token, a payload or a subject. */
export const traced = async <T>(
  name: string,
  { job, headers }: Traced,
  run: () => Promise<T>,
): Promise<T> => {
  if (!api) return run()
  const { context, propagation, SpanKind, SpanStatusCode, trace } = api
  const parent = headers ? propagation.extract(context.active(), headers) : context.active()
  const options = { kind: SpanKind.SERVER, attributes: { 'jobs.job': job } }
  return trace.getTracer('@jobs/gateway').startActiveSpan(name, options, parent, async (span: Span) => {
    try {
      return await run()
    } catch (error) {
      span.setStatus({
        code: SpanStatusCode.ERROR,
        message: String((error as { code?: unknown }).code ?? ''),
      })
      throw error
    } finally {
      span.end()
    }
  })
}
