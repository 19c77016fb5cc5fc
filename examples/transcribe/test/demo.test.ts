// The main job as its users see it: by command line, and on the page in a real browser.
import { join } from 'node:path'
import { findProgram } from '@jobs/provision'
import { fromSource, startProcess, type TestProcess, until } from '@jobs/testkit'
import { chromium } from 'playwright-core'
import { expect, it } from 'vitest'

const demo = (...args: string[]): TestProcess =>
  startProcess(process.execPath, [...fromSource('examples/transcribe/src/demo.ts'), ...args])

it('demo --once transcribes, kills the worker, and sees every event of every job exactly once', {
  timeout: 180_000,
}, async () => {
  const once = demo('--once')
  expect(await once.exited).toEqual({ code: 0, signal: null })
  const jobs = once.stdout.filter((line) => line.startsWith('COMPLETED'))
  expect(jobs.length).toBeGreaterThan(1)
  expect(jobs.every((line) => /seq 1\.\.\d+ whole/.test(line))).toBe(true)
  expect(once.stdout.some((line) => line.startsWith('kill -9'))).toBe(true)
})

const browserPath = findProgram('chromium')
if (browserPath === undefined) console.log('The page is not tested: there is no chromium on the PATH.')

it.runIf(browserPath !== undefined)(
  'the page shows a killed worker, the recovery, attempt 2 and the text',
  { timeout: 180_000 },
  async () => {
    const running = demo('--port', '0')
    const address = (await running.line((line) => line.startsWith('The page: '), 120_000)).slice(
      'The page: '.length,
    )
    const browser = await chromium.launch({
      executablePath: browserPath as string,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    })
    const page = await browser.newPage()
    const problems: string[] = []
    page.on('pageerror', (error) => problems.push(error.message))
    page.on('console', (message) => message.type() === 'error' && problems.push(message.text()))
    await page.goto(address)
    await page.getByRole('status').filter({ hasText: 'Live' }).waitFor()
    await page.getByRole('button', { name: 'Transcribe the samples' }).click()
    const job = page
      .locator('.job')
      .filter({ hasText: /in one|package.json/ })
      .first()
    await until(async () => ((await job.locator('.text').textContent()) ?? '') !== '', {
      what: 'the first words',
      timeoutMs: 60_000,
    })
    await page.getByRole('button', { name: 'kill -9' }).click()
    await job.locator('.story .lost').waitFor({ timeout: 30_000 })
    await job.filter({ hasText: 'COMPLETED · attempt 2' }).waitFor({ timeout: 60_000 })
    await page.waitForFunction(
      () =>
        [...document.querySelectorAll('.job')].every(
          (each) => (each as HTMLElement).dataset.state === 'COMPLETED',
        ),
      undefined,
      { timeout: 60_000 },
    )
    const seqs = await page.locator('.seq').allTextContents()
    expect(seqs.every((text) => text.includes('none missing'))).toBe(true)
    expect(await job.locator('.text').textContent()).toContain('young man')
    const shots = process.env.JOBS_SCREENSHOTS
    if (shots) {
      await page.screenshot({ path: join(shots, 'light.png'), fullPage: true })
      await page.emulateMedia({ colorScheme: 'dark' })
      await page.setViewportSize({ width: 390, height: 844 })
      await page.screenshot({ path: join(shots, 'phone-dark.png') })
    }
    // A file of the wrong kind gets one clear sentence.
    await page
      .locator('#file')
      .setInputFiles({ name: 'song.mp3', mimeType: 'audio/mpeg', buffer: Buffer.from('ID3 not a wav') })
    await page.getByRole('alert').filter({ hasText: 'ffmpeg' }).waitFor()
    expect(problems.filter((text) => !text.includes('415'))).toEqual([])
    await browser.close()
    await running.kill('SIGINT')
    expect(await running.exited).toEqual({ code: 0, signal: null })
  },
)
