/** Where a process spends its time: V8's sampling profile of the probe, reduced to self time. */
import { mkdir, writeFile } from "node:fs/promises"
import * as Schema from "effect/Schema"
import type * as Child from "./Child.ts"
import * as Report from "./Report.ts"

const decodeProfile = Schema.decodeUnknownSync(
  Schema.Struct({
    nodes: Schema.Array(
      Schema.Struct({
        id: Schema.Number,
        callFrame: Schema.Struct({
          functionName: Schema.String,
          url: Schema.String,
          lineNumber: Schema.Number
        })
      })
    ),
    samples: Schema.Array(Schema.Number),
    timeDeltas: Schema.Array(Schema.Number)
  })
)
const decodeAnswer = Schema.decodeUnknownSync(Schema.Struct({ profile: Schema.Unknown }))

/**
 * Profiles a child while `load` runs, writes `results/<name>.cpuprofile` (for Chrome DevTools or an editor) and prints
 * the functions and the modules with the most self time. Idle time is left out of the shares.
 */
export const record = async (name: string, child: Child.Child, load: () => Promise<unknown>) => {
  await child.ask("profile start")
  await load()
  const { profile } = decodeAnswer(await child.ask("profile stop"))
  const folder = new URL("../results/", import.meta.url)
  await mkdir(folder, { recursive: true })
  await writeFile(new URL(`${name}.cpuprofile`, folder), JSON.stringify(profile))

  const { nodes, samples, timeDeltas } = decodeProfile(profile)
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  const functions = new Map<string, number>()
  const modules = new Map<string, number>()
  let busy = 0
  samples.forEach((id, index) => {
    const frame = frames.get(id)
    const micros = timeDeltas[index] ?? 0
    if (frame === undefined || frame.functionName === "(idle)") return
    const module = moduleOf(frame.url)
    const place = frame.url === "" ? "" : `  ${shorten(frame.url)}:${frame.lineNumber + 1}`
    const title = `${frame.functionName || "(anonymous)"}${place}`
    busy += micros
    functions.set(title, (functions.get(title) ?? 0) + micros)
    modules.set(module, (modules.get(module) ?? 0) + micros)
  })

  console.log(`\n${name}: ${(busy / 1_000).toFixed(0)} ms busy, by self time`)
  console.log(top(modules, 10, busy))
  console.log()
  console.log(top(functions, 40, busy))
  console.log(`\nWritten to results/${name}.cpuprofile`)
}

const top = (times: ReadonlyMap<string, number>, count: number, busy: number) =>
  Report.table(
    [...times]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, count)
      .map(([title, micros]) => [title, `${((100 * micros) / busy).toFixed(1)} %`])
  )

const workspace = new URL("../../", import.meta.url).href

const shorten = (url: string) => url.replace(/^.*\/node_modules\//, "").replace(workspace, "")

const moduleOf = (url: string) => {
  if (url === "") return "(engine: garbage collection, native code)"
  if (url.startsWith("node:")) return "node"
  const [, dependency] = /^.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url) ?? []
  return dependency ?? shorten(url).split("/").slice(0, 2).join("/")
}
