/** Two of our gateways on one port beside one: how much more they take. */
import { cpus } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as Child from "./Child.ts"
import * as FreePort from "./FreePort.ts"
import * as Contestant from "./gateway/Contestant.ts"
import * as Database from "./gateway/Database.ts"
import * as Load from "./Load.ts"
import * as Options from "./Options.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Statistics from "./Statistics.ts"
import * as Upstream from "./Upstream.ts"

/** Connections to each worker; the kernel deals them out, so many of them even that out. */
const concurrency = 32
const full = { rounds: 7, warmCalls: 6_000, calls: 6_000 }
const quick = { rounds: 3, warmCalls: 1_000, calls: 1_000 }
const target = 1.8

/** Workers on one port, each with a database of its own that knows the same key. */
const start = async (
  upstream: string,
  seed: { readonly data: string; readonly secret: string },
  count: number
) => {
  await using stack = new AsyncDisposableStack()
  const port = await FreePort.find()
  const workers: Array<Child.Child> = []
  for (let index = 0; index < count; index++) {
    const { path } = stack.use(await Contestant.folder())
    await Database.filled(seed.data, join(path, "data"), () => {})
    const place = { upstream, port, adminPort: await FreePort.find(), folder: path }
    const worker = stack.use(
      Child.start({
        name: `worker ${index + 1} of ${count}`,
        file: Contestant.llmFile,
        folder: path,
        environment: { ...Contestant.llmEnvironment(place), LLM_REUSE_PORT: "true" }
      })
    )
    // On a shared port nobody can tell who answered, so each is known to stand by its admin API.
    await Promise.race([Load.listening(place.adminPort), worker.ended])
    workers.push(worker)
  }
  const load: Load.Target = {
    name: `${count} workers`,
    origin: `http://127.0.0.1:${port}`,
    headers: {},
    nextKey: () => seed.secret
  }
  await Load.ready(load)
  await sleep(500)
  const owned = stack.move()
  return { load, workers, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

/** Runs the measurement with the arguments of a command line; resolves when the report is printed and written. */
export const run = async (given: ReadonlyArray<string>) => {
  const options = Options.parse("bench workers", ["one", "two"], given)
  const sizes = options.quick ? quick : full
  await using upstream = await Upstream.start()
  await using folder = await Contestant.folder()
  const seed = await Database.seed(upstream.origin, folder.path)
  await using one = await start(upstream.origin, seed, 1)
  await using two = await start(upstream.origin, seed, 2)
  const sides = [
    { name: "one", title: "one worker", ...one },
    { name: "two", title: "two workers", ...two }
  ]
  for (const { load, workers } of sides) {
    await Load.chats(load, workers.length * sizes.warmCalls, workers.length * concurrency)
  }

  const recording = new Recording.Recording()
  for (let round = 0; round < sizes.rounds; round++) {
    for (const { load, name, workers } of sides) {
      const calls = workers.length * sizes.calls
      const usage = () => Promise.all(workers.map((worker) => worker.usage()))
      const before = await usage()
      const begin = performance.now()
      await Load.chats(load, calls, workers.length * concurrency)
      const seconds = (performance.now() - begin) / 1_000
      const spent = (await usage()).map(({ cpu }, index) => cpu - (before[index]?.cpu ?? 0))
      const total = spent.reduce((sum, cpu) => sum + cpu, 0)
      recording.add("cpuPerRequest", name, total / calls)
      recording.add("capacity", name, (workers.length * calls * 1e6) / total)
      recording.add("throughput", name, calls / seconds)
      recording.add("share", name, Math.max(...spent) / total)
    }
    process.stderr.write(`round ${round + 1} of ${sizes.rounds}\n`)
  }

  const measure = (name: string, title: string, unit: string): Report.Measure => ({
    name,
    title,
    unit,
    digits: 0,
    samples: recording.of(name)
  })
  // The load and the upstream take most of two cores: with fewer than four, the clock says what they leave over.
  const byTheClock = cpus().length >= 4
  const ratio = (title: string, name: string, isTarget: boolean): Report.Ratio => ({
    title,
    measure: name,
    above: "two",
    below: "one",
    ...(isTarget ? { target: { atLeast: target } } : {})
  })
  await Report.publish({
    name: "workers",
    options,
    contestants: sides,
    missing: [],
    notes: byTheClock
      ? []
      : [`Throughput is no measure here: ${cpus().length} cores for two workers, the load and the upstream.`],
    measures: [
      measure("cpuPerRequest", "CPU per request", "µs"),
      measure("capacity", "requests per second that a core each would take", ""),
      measure("throughput", "requests per second by the clock", "")
    ],
    ratios: [
      ratio("capacity by CPU time, two workers / one", "capacity", true),
      ratio("throughput by the clock, two workers / one", "throughput", byTheClock)
    ],
    checks: {
      "Share of the work that the busier one did (0.5: even)": {
        two: Statistics.summarise(recording.of("share").get("two") ?? []).median
      }
    }
  })
}

if (import.meta.main) await run(process.argv.slice(2))
