/** What a call costs our gateway when there is much: many keys, all of them in use; many rows in the ledger. */
import { join } from "node:path"
import * as Contestant from "./gateway/Contestant.ts"
import * as Database from "./gateway/Database.ts"
import * as Load from "./Load.ts"
import * as Options from "./Options.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Upstream from "./Upstream.ts"

const concurrency = 16
const fewKeys = 10

interface Sizes {
  readonly keys: number
  readonly rows: number
  readonly rounds: number
  readonly warmCalls: number
  readonly calls: number
}

const full: Sizes = { keys: 100_000, rows: 10_000_000, rounds: 7, warmCalls: 5_000, calls: 4_000 }
const quick: Sizes = { keys: 20_000, rows: 1_000_000, rounds: 5, warmCalls: 2_000, calls: 1_500 }

const titleOf = (count: number) => count.toLocaleString("en-US")

/** Runs the measurement with the arguments of a command line; resolves when the report is printed and written. */
export const run = async (given: ReadonlyArray<string>) => {
  const names = ["few", "keys", "rows"]
  const options = Options.parse("bench growth", names, given, {
    keys: "keys of the one with many (100000; 20000 with --quick)",
    rows: "rows in the ledger of the one with many (10000000; 1000000 with --quick)"
  })
  const base = options.quick ? quick : full
  const sizes = {
    ...base,
    keys: options.sizes["keys"] ?? base.keys,
    rows: options.sizes["rows"] ?? base.rows
  }
  await using upstream = await Upstream.start()
  await using folder = await Contestant.folder()
  await using stack = new AsyncDisposableStack()
  const { data } = await Database.seed(upstream.origin, folder.path)

  /** Its calls come with its keys in turn. */
  const contestant = (name: string, title: string, keys: number, rows: number): Contestant.Contestant => {
    let next = 0
    const secrets = Array.from({ length: keys }, (_, index) => Database.secretOf(index + 1))
    return {
      name,
      title,
      file: Contestant.llmFile,
      start: async (place) => {
        const begin = performance.now()
        await Database.filled(data, join(place.folder, "data"), (database) => {
          Database.addKeys(database, keys)
          if (rows > 0) Database.addRows(database, rows)
        })
        process.stderr.write(`${title}: filled in ${((performance.now() - begin) / 1_000).toFixed(1)} s\n`)
        return { environment: Contestant.llmEnvironment(place) }
      },
      nextKey: () => secrets[next++ % keys] ?? "",
      peer: false
    }
  }
  const contestants = [
    contestant("few", `${fewKeys} keys, empty ledger`, fewKeys, 0),
    contestant("keys", `${titleOf(sizes.keys)} keys`, sizes.keys, 0),
    contestant("rows", `${titleOf(sizes.rows)} rows`, fewKeys, sizes.rows)
  ].filter(({ name }) => options.only.length === 0 || options.only.includes(name))

  const recording = new Recording.Recording()
  const running: Array<Contestant.Running> = []
  for (const each of contestants) running.push(stack.use(await Contestant.start(each, upstream.origin)))
  // Every key is used before the clock runs: what costs a query is the first call of a key, not the others.
  for (const { name, target } of running) {
    await Load.chats(
      target,
      name === "keys" ? Math.max(sizes.keys, sizes.warmCalls) : sizes.warmCalls,
      concurrency
    )
    process.stderr.write(`${name} is warm\n`)
  }
  for (let round = 0; round < sizes.rounds; round++) {
    for (const { child, name, target } of running) {
      const before = await child.usage()
      await Load.chats(target, sizes.calls, concurrency)
      const after = await child.usage()
      recording.add("cpuPerRequest", name, (after.cpu - before.cpu) / sizes.calls)
      recording.add("memory", name, after.rss / 1_024 / 1_024)
    }
    process.stderr.write(`round ${round + 1} of ${sizes.rounds}\n`)
  }

  const flat = (above: string, title: string): Report.Ratio => ({
    title,
    measure: "cpuPerRequest",
    above,
    below: "few",
    target: { atMost: 1.1 }
  })
  await Report.publish({
    name: "growth",
    options,
    contestants,
    missing: [],
    notes: [],
    measures: [
      {
        name: "cpuPerRequest",
        title: "CPU per request",
        unit: "µs",
        digits: 0,
        samples: recording.of("cpuPerRequest")
      },
      { name: "memory", title: "resident memory", unit: "MB", digits: 0, samples: recording.of("memory") }
    ],
    ratios: [
      flat("keys", `CPU per request, ${titleOf(sizes.keys)} keys / ${fewKeys}`),
      flat("rows", `CPU per request, ${titleOf(sizes.rows)} rows in the ledger / none`)
    ],
    checks: {}
  })
}

if (import.meta.main) await run(process.argv.slice(2))
