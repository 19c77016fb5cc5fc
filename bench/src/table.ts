// Figures beside a peer's: medians, ratios, and whether the target is met; for people as a table, for machines as JSON.

export interface Figure {
  figure: string
  unit: string
  ours: number
  /** Null where there is no peer to compare with: the target is then of our own figure. */
  peer: number | null
  /** What the ratio (or, without a peer, our figure) has to reach. */
  target: { atLeast: number } | { atMost: number }
  /** The target is of our own figure, though there is a peer. */
  own?: boolean
}

export interface Row extends Figure {
  ratio: number | null
  met: boolean
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** A figure that could not be measured (NaN) is not met. */
export const judged = (figure: Figure): Row => {
  const { ours, peer } = figure
  // Of two that lost nothing neither lost more.
  const ratio = peer === null ? null : ours === peer ? 1 : ours / peer
  const seen = figure.own ? figure.ours : (ratio ?? figure.ours)
  const { target } = figure
  return { ...figure, ratio, met: 'atLeast' in target ? seen >= target.atLeast : seen <= target.atMost }
}

const shown = (value: number | null): string => {
  if (value === null) return '–'
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US')
  return value.toFixed(Math.abs(value) >= 10 ? 1 : 2)
}

const wanted = ({ target, peer, unit, own }: Row): string => {
  const times = peer === null || own ? ` ${unit}` : ' ×'
  return 'atLeast' in target ? `≥ ${target.atLeast}${times}` : `≤ ${target.atMost}${times}`
}

/** A Markdown table, padded so that it can be read in a terminal too. */
export const tableOf = (rows: readonly Row[], peer: string): string => {
  const lines = [
    ['figure', 'unit', 'ours', peer, 'ratio', 'target', 'met'],
    ...rows.map((row) => [
      row.figure,
      row.unit,
      shown(row.ours),
      shown(row.peer),
      row.ratio === null ? '–' : `${row.ratio.toFixed(2)} ×`,
      wanted(row),
      row.met ? 'yes' : 'NO',
    ]),
  ]
  const widths =
    lines[0]?.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length))) ?? []
  const text = (line: string[]) => `| ${line.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`
  const [head = [], ...body] = lines
  return [text(head), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...body.map(text)].join(
    '\n',
  )
}
