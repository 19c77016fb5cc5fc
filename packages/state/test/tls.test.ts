// Redis behind TLS: who can't show a certificate for its name, from somebody who is trusted, is not talked to.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer } from 'node:tls'
import { fromSource, startProcess, startTestRedis, type TestRedis } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const hasOpenssl = spawnSync('openssl', ['version']).status === 0
if (!hasOpenssl) console.log('TLS is not tested: there is no openssl on the PATH.')

describe.runIf(hasOpenssl)('a Redis behind TLS', () => {
  const dir = mkdtempSync(join(tmpdir(), 'jobs-tls-'))
  const servers: Server[] = []
  let redis: TestRedis

  /** A certificate for these names, signed by itself. */
  const certify = (file: string, names: string): string => {
    const [key, cert] = [join(dir, `${file}.key`), join(dir, `${file}.pem`)]
    const kind = [
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '1',
    ]
    const about = ['-subj', `/CN=${file}`, '-addext', `subjectAltName=${names}`]
    execFileSync('openssl', ['req', ...kind, ...about, '-keyout', key, '-out', cert], {
      stdio: 'ignore',
    })
    return cert
  }
  /** The port of a server that shows it, and leads to Redis. */
  const serve = async (file: string): Promise<number> => {
    const { hostname, port } = new URL(redis.url)
    const shown = {
      key: readFileSync(join(dir, `${file}.key`)),
      cert: readFileSync(join(dir, `${file}.pem`)),
    }
    const server = createServer(shown, (socket) => {
      const far = connect(Number(port), hostname)
      for (const each of [socket, far]) each.on('error', () => undefined)
      socket.pipe(far).pipe(socket)
    })
    // What refuses it hangs up.
    server.on('tlsClientError', () => undefined)
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return (server.address() as AddressInfo).port
  }
  const said = async (url: string, trusted?: string): Promise<string> => {
    const args = [...fromSource('packages/state/test/tls-client.ts'), url]
    const env = trusted === undefined ? {} : { NODE_EXTRA_CA_CERTS: trusted }
    const client = startProcess(process.execPath, args, { env })
    await client.exited
    return client.stdout.join()
  }

  let ours: string
  let others: string
  beforeAll(async () => {
    redis = await startTestRedis()
    ours = certify('ours', 'DNS:localhost,IP:127.0.0.1')
    others = certify('others', 'DNS:redis.example')
  })
  afterAll(async () => {
    for (const server of servers) server.close()
    await redis.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  it('is talked to where its certificate is trusted and names it; in no other case', async () => {
    const [right, wrong] = [await serve('ours'), await serve('others')]
    const plain = new URL(redis.url).port
    const answers = await Promise.all([
      said(`rediss://127.0.0.1:${right}`, ours),
      said(`rediss://127.0.0.1:${right}`),
      said(`rediss://127.0.0.1:${wrong}`, others),
      said(`rediss://127.0.0.1:${plain}`, ours),
    ])
    expect(answers).toEqual(['PONG', 'REDIS_UNAVAILABLE', 'REDIS_UNAVAILABLE', 'REDIS_UNAVAILABLE'])
  })
})
