/** What a run leaves behind: a table on the terminal and a file in `results/`. */
import { mkdir, writeFile } from "node:fs/promises"
import { cpus } from "node:os"
import type * as Options from "./Options.ts"
import type * as Recording from "./Recording.ts"
import * as Statistics from "./Statistics.ts"

export interface Measure {
  readonly name: string
  readonly title: string
  readonly unit: string
  readonly digits: number
  readonly samples: Recording.Samples
}

export interface Ratio {
  readonly title: string
  readonly measure: string
  readonly above: string
  readonly below: string
  readonly target?: { readonly atMost: number } | { readonly atLeast: number }
}

/** What one contestant's median must stay within, in the measure's own unit. */
interface Bound {
  readonly measure: string
  readonly contestant: string
  readonly atMost: number
}

export interface Report {
  readonly name: string
  readonly options: Options.Options
  readonly contestants: ReadonlyArray<{ readonly name: string; readonly title: string }>
  readonly missing: ReadonlyArray<string>
  /** What a reader must know beside the numbers, such as a contestant that could not do a part. */
  readonly notes: ReadonlyArray<string>
  readonly measures: ReadonlyArray<Measure>
  readonly ratios: ReadonlyArray<Ratio>
  readonly bounds?: ReadonlyArray<Bound>
  readonly checks: Readonly<Record<string, Readonly<Record<string, number>>>>
}

export const table = (rows: ReadonlyArray<ReadonlyArray<string>>) => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row.map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)
      )
    )
    .map((row) => row.join("  ").trimEnd())
    .join("\n")
}

const spread = (summary: Statistics.Summary, digits: number, suffix = "") =>
  `${summary.median.toFixed(digits)}${suffix} (${summary.minimum.toFixed(digits)}–${summary.maximum.toFixed(digits)})`

const outcome = (ratio: Ratio, summary: Statistics.Summary) => {
  if (ratio.target === undefined) return { target: "", met: undefined }
  if ("atMost" in ratio.target) {
    return { target: `≤ ${ratio.target.atMost}×`, met: summary.median <= ratio.target.atMost }
  }
  return { target: `≥ ${ratio.target.atLeast}×`, met: summary.median >= ratio.target.atLeast }
}

/** How every target's line ends. */
export const verdict = (met: boolean) => (met ? "met" : "MISSED")

/** Prints the report and writes `results/<name>.json`; a partial run gets a file of its own that git ignores. */
export const publish = async (report: Report) => {
  const columns = report.contestants.filter(({ name }) =>
    report.measures.some(({ samples }) => samples.has(name))
  )
  const measures = report.measures.map((measure) => ({
    ...measure,
    summaries: new Map([...measure.samples].map(([name, samples]) => [name, Statistics.summarise(samples)]))
  }))
  const ratios = report.ratios.map((ratio) => {
    const samples = report.measures.find(({ name }) => name === ratio.measure)?.samples
    const above = samples?.get(ratio.above)
    const below = samples?.get(ratio.below)
    if (above === undefined || below === undefined)
      return { ...ratio, summary: undefined, target: "", met: undefined }
    const summary = Statistics.ratio(above, below)
    return { ...ratio, summary, ...outcome(ratio, summary) }
  })
  const bounds = (report.bounds ?? []).flatMap((bound) => {
    const measure = measures.find(({ name }) => name === bound.measure)
    const summary = measure?.summaries.get(bound.contestant)
    if (measure === undefined || summary === undefined) return []
    return [{ ...bound, measure, summary, met: summary.median <= bound.atMost }]
  })
  const cpu = processor()

  console.log(`\n${report.name}: Node ${process.version}, ${cpu.count} × ${cpu.model}`)
  console.log("Medians over rounds (minimum–maximum).\n")
  console.log(
    table([
      ["", ...columns.map(({ title }) => title)],
      ...measures.map(({ title, unit, digits, summaries }) => [
        `${title}, ${unit}`,
        ...columns.map(({ name }) => {
          const summary = summaries.get(name)
          return summary === undefined ? "–" : spread(summary, digits)
        })
      ])
    ])
  )
  const shown = ratios.flatMap(({ title, summary, target, met }) =>
    summary === undefined
      ? []
      : [[title, spread(summary, 2, "×"), target, met === undefined ? "" : verdict(met)]]
  )
  if (shown.length > 0) console.log(`\n${table([["ratio, round by round", "", "target", ""], ...shown])}`)
  const verdicts = [
    ...ratios.flatMap(({ met, summary, target, title }) =>
      summary === undefined || met === undefined
        ? []
        : [`target ${title} ${target}: ${verdict(met)} (${spread(summary, 2, "×")})`]
    ),
    ...bounds.map(
      ({ atMost, contestant, measure, met, summary }) =>
        `target ${measure.title} of ${contestant} ≤ ${atMost} ${measure.unit}: ${verdict(met)} (${spread(summary, measure.digits)})`
    )
  ]
  if (verdicts.length > 0) console.log(`\n${verdicts.join("\n")}`)
  for (const [title, values] of Object.entries(report.checks)) {
    const listed = Object.entries(values).map(([name, value]) => `${name} ${Number(value.toFixed(2))}`)
    if (listed.length > 0) console.log(`\n${title}: ${listed.join(", ")}`)
  }
  for (const note of report.notes) console.log(`\n${note}`)
  for (const name of report.missing) console.log(`\n${name}: not yet measured.`)

  await write(report.name, report.options.quick || report.options.only.length > 0, {
    quick: report.options.quick,
    notYetMeasured: report.missing,
    notes: report.notes,
    measures: measures.map(({ name, title, unit, samples, summaries }) => ({
      name,
      title,
      unit,
      contestants: Object.fromEntries(
        [...summaries].map(([contestant, summary]) => [
          contestant,
          { ...summary, samples: samples.get(contestant) }
        ])
      )
    })),
    ratios: ratios.map(({ title, summary, target, met }) => ({ title, ...summary, target, met })),
    bounds: bounds.map(({ atMost, contestant, measure, met, summary }) => ({
      measure: measure.name,
      contestant,
      ...summary,
      target: `≤ ${atMost} ${measure.unit}`,
      met
    })),
    checks: report.checks
  })
}

/** Writes `results/<name>.json`, or `<name>.partial.json`, which git ignores: what was found, and on what machine. */
export const write = async (name: string, partial: boolean, found: object) => {
  const folder = new URL("../results/", import.meta.url)
  const file = `${name}${partial ? ".partial" : ""}.json`
  const machine = {
    name,
    date: new Date().toISOString(),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    cpu: processor()
  }
  await mkdir(folder, { recursive: true })
  await writeFile(
    new URL(file, folder),
    `${JSON.stringify(
      { ...machine, ...found },
      (_, value) => (typeof value === "number" ? Math.round(value * 1_000) / 1_000 : value),
      2
    )}\n`
  )
  console.log(`\nWritten to results/${file}`)
}

const processor = () => {
  const processors = cpus()
  return { model: processors[0]?.model.trim() ?? "unknown", count: processors.length }
}
