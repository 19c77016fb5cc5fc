// `pnpm test:engines`: the suite of packages/state on the machine's own Redis and on every other engine, one after
// another. Ends with a table, and fails when a test failed or an engine can't be had. More arguments go to vitest.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ENGINES, findRedis, workspaceRoot } from '@jobs/provision'

interface Row {
  engine: string
  version: string
  passed: number
  failed: number
}

/** What vitest's JSON report says; a run without one has failed before its first test. */
const suiteOn = (env: NodeJS.ProcessEnv): Pick<Row, 'passed' | 'failed'> => {
  const folder = mkdtempSync(join(tmpdir(), 'jobs-engines-'))
  const file = join(folder, 'report.json')
  try {
    const vitest = join(workspaceRoot(), 'node_modules/vitest/vitest.mjs')
    spawnSync(
      process.execPath,
      [
        vitest,
        'run',
        'packages/state',
        // It would start the other engines by itself.
        '--exclude=**/engines.test.ts',
        '--reporter=dot',
        '--reporter=json',
        `--outputFile.json=${file}`,
        ...process.argv.slice(2),
      ],
      { cwd: workspaceRoot(), env, stdio: 'inherit' },
    )
    const report = JSON.parse(readFileSync(file, 'utf8')) as {
      success: boolean
      numPassedTests: number
      numFailedTests: number
    }
    // A file that can't be loaded fails without a failed test.
    const failed = report.success ? 0 : Math.max(1, report.numFailedTests)
    return { passed: report.numPassedTests, failed }
  } catch (error) {
    console.error(`The test runner left no report: ${(error as Error).message}`)
    return { passed: 0, failed: 1 }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const rows: Row[] = []
for (const engine of ['', ...ENGINES]) {
  const env = { ...process.env, JOBS_REDIS_ENGINE: engine }
  const name = engine || 'default'
  try {
    const { described } = await findRedis({ env, onProgress: (line) => console.log(`  … ${line}`) })
    console.log(`\n${name}: ${described}`)
    rows.push({ engine: name, version: described, ...suiteOn(env) })
  } catch (error) {
    rows.push({ engine: name, version: `can't be had: ${(error as Error).message}`, passed: 0, failed: 1 })
  }
}
console.table(rows)
if (rows.some(({ failed, passed }) => failed > 0 || passed === 0)) process.exitCode = 1
