/** Gateways side by side: their own CPU time, the latency that they add, and the memory of open streams. */
import { existsSync } from "node:fs"
import { createServer } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import * as Child from "./Child.ts"
import * as Load from "./Load.ts"
import * as Options from "./Options.ts"
import * as Profile from "./Profile.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Statistics from "./Statistics.ts"
import * as Upstream from "./Upstream.ts"

interface Contestant {
  readonly name: string
  readonly title: string
  readonly file: URL
  readonly start: (upstream: string, port: number) => Pick<Child.Options, "arguments" | "environment">
  readonly headers: (upstream: string) => Readonly<Record<string, string>>
  /** A peer that fails streams is noted and measured without them; our own failure ends the run. */
  readonly peer: boolean
}

/** To add a contestant, add an entry: how to start it in front of an upstream, and which headers it wants. */
const contestants: ReadonlyArray<Contestant> = [
  {
    name: "bare",
    title: "bare proxy",
    file: new URL("./children/bare.ts", import.meta.url),
    start: (upstream, port) => ({ environment: { UPSTREAM: upstream, PORT: String(port) } }),
    headers: () => ({}),
    peer: false
  },
  {
    name: "llm",
    title: "llm gateway",
    file: new URL("../../apps/api/dist/main.js", import.meta.url),
    start: (upstream, port) => ({
      environment: {
        LLM_HOST: "127.0.0.1",
        LLM_PORT: String(port),
        LLM_PROVIDER: "openai",
        OPENAI_BASE_URL: `${upstream}/v1`,
        OPENAI_API_KEY: "sk-bench"
      }
    }),
    headers: () => ({}),
    peer: false
  },
  {
    name: "portkey",
    title: "Portkey",
    file: new URL(import.meta.resolve("@portkey-ai/gateway/build/start-server.js")),
    // Headless and in production, which is its leanest way to run; it has no option for the host that it binds.
    start: (_, port) => ({ arguments: ["--headless", `--port=${port}`] }),
    headers: (upstream) => ({ "x-portkey-provider": "openai", "x-portkey-custom-host": `${upstream}/v1` }),
    peer: true
  }
]

const concurrency = 16
const heldStreams = 1_000
const heldEvents = 5
const limitMillis = 120_000

interface Sizes {
  readonly rounds: number
  readonly warmChats: number
  readonly warmStreams: number
  readonly chats: number
  readonly streams: number
  readonly shortEvents: number
  readonly longEvents: number
  readonly latencies: number
}

const full: Sizes = {
  rounds: 5,
  warmChats: 3_000,
  warmStreams: 32,
  chats: 2_000,
  streams: 32,
  shortEvents: 20,
  longEvents: 400,
  latencies: 200
}
const quick: Sizes = {
  ...full,
  rounds: 3,
  warmChats: 1_500,
  warmStreams: 16,
  chats: 1_000,
  streams: 16,
  latencies: 100
}

interface Running extends AsyncDisposable {
  readonly name: string
  readonly child: Child.Child
  readonly target: Load.Target
  /** Why it cannot stream, when it cannot. */
  readonly streamFault: string | undefined
}

const start = async (contestant: Contestant, upstream: string): Promise<Running> => {
  const port = await freePort()
  const child = Child.start({
    name: contestant.title,
    file: contestant.file,
    ...contestant.start(upstream, port)
  })
  const target = {
    name: contestant.title,
    origin: `http://127.0.0.1:${port}`,
    headers: contestant.headers(upstream)
  }
  await Promise.race([Load.ready(target), child.ended])
  const streamFault = await Load.streams(target, 1, 1, 1).then(
    () => undefined,
    (fault: Error) => fault.message
  )
  if (streamFault !== undefined && !contestant.peer) throw new Error(streamFault)
  return {
    name: contestant.name,
    child,
    target,
    streamFault,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]()
  }
}

const freePort = () =>
  new Promise<number>((resolve, reject) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() =>
        address === null || typeof address === "string"
          ? reject(new Error("No free port"))
          : resolve(address.port)
      )
    })
  })

const spent = async (child: Child.Child, work: () => Promise<unknown>) => {
  const before = await child.usage()
  await work()
  return (await child.usage()).cpu - before.cpu
}

const measureSpeed = async (
  chosen: ReadonlyArray<Contestant>,
  upstream: Upstream.Upstream,
  sizes: Sizes,
  recording: Recording.Recording
) => {
  await using stack = new AsyncDisposableStack()
  const running: Array<Running> = []
  for (const contestant of chosen) running.push(stack.use(await start(contestant, upstream.origin)))
  const direct: Load.Target = { name: "upstream", origin: upstream.origin, headers: {} }

  for (const { target, streamFault } of running) {
    await Load.chats(target, sizes.warmChats, concurrency)
    if (streamFault === undefined)
      await Load.streams(target, sizes.warmStreams, concurrency, sizes.longEvents)
  }
  await Load.latencies(direct, sizes.latencies)

  for (let round = 0; round < sizes.rounds; round++) {
    const recordLatency = async (name: string, target: Load.Target) => {
      const times = await Load.latencies(target, sizes.latencies)
      recording.add("latencyMedian", name, Statistics.percentile(times, 0.5))
      recording.add("latencyTail", name, Statistics.percentile(times, 0.99))
    }
    await recordLatency("direct", direct)
    for (const { name, child, target, streamFault } of running) {
      await recordLatency(name, target)
      const chats = await spent(child, () => Load.chats(target, sizes.chats, concurrency))
      recording.add("cpuPerRequest", name, chats / sizes.chats)
      if (streamFault !== undefined) continue

      const short = await spent(child, () =>
        Load.streams(target, sizes.streams, concurrency, sizes.shortEvents)
      )
      const begin = performance.now()
      const long = await spent(child, async () => {
        const perChunk = await Load.streams(target, sizes.streams, concurrency, sizes.longEvents)
        recording.add("eventsPerChunk", name, perChunk)
      })
      recording.add("streamLoad", name, long / 1_000 / (performance.now() - begin))
      const perEvent = (long - short) / sizes.streams / (sizes.longEvents - sizes.shortEvents)
      recording.add("cpuPerEvent", name, perEvent)
    }
    process.stderr.write(`round ${round + 1} of ${sizes.rounds}\n`)
  }
  return running.flatMap(({ streamFault }) =>
    streamFault === undefined ? [] : [`No streams: ${streamFault}`]
  )
}

/** In fresh processes, so that what the speed rounds left in the heap is not counted as memory of open streams. */
const measureMemory = async (
  chosen: ReadonlyArray<Contestant>,
  upstream: Upstream.Upstream,
  recording: Recording.Recording
) => {
  const megabyte = 1_024 * 1_024
  for (const contestant of chosen) {
    await using running = await start(contestant, upstream.origin)
    await Load.chats(running.target, 100, concurrency)
    if (running.streamFault !== undefined) continue
    const idle = await running.child.usage()
    {
      await using _ = await Load.hold(running.target, heldStreams, heldEvents)
      await sleep(1_000)
      const open = await running.child.usage()
      recording.add("memoryIdle", contestant.name, idle.rss / megabyte)
      recording.add("memoryOpen", contestant.name, open.rss / megabyte)
      recording.add("memoryPerStream", contestant.name, (open.rss - idle.rss) / 1_024 / heldStreams)
    }
    await sleep(1_000)
    recording.add("streamsLeft", contestant.name, await upstream.openStreams())
    process.stderr.write(`memory of ${contestant.title}\n`)
  }
}

const profile = async (contestant: Contestant, upstream: Upstream.Upstream, sizes: Sizes) => {
  await using running = await start(contestant, upstream.origin)
  const { child, target } = running
  await Load.chats(target, sizes.warmChats, concurrency)
  await Load.streams(target, sizes.warmStreams, concurrency, sizes.longEvents)
  await Profile.record(`${contestant.name}-chat`, child, () =>
    Load.chats(target, 5 * sizes.chats, concurrency)
  )
  await Profile.record(`${contestant.name}-stream`, child, () =>
    Load.streams(target, 3 * sizes.streams, concurrency, sizes.longEvents)
  )
}

const targets: ReadonlyArray<Report.Ratio> = [
  {
    title: "CPU per request, llm gateway / bare proxy",
    measure: "cpuPerRequest",
    above: "llm",
    below: "bare",
    target: { atMost: 2.5 }
  },
  {
    title: "CPU per event, llm gateway / bare proxy",
    measure: "cpuPerEvent",
    above: "llm",
    below: "bare",
    target: { atMost: 1.5 }
  },
  {
    title: "CPU per request, Portkey / llm gateway",
    measure: "cpuPerRequest",
    above: "portkey",
    below: "llm",
    target: { atLeast: 3 }
  },
  { title: "CPU per event, Portkey / llm gateway", measure: "cpuPerEvent", above: "portkey", below: "llm" },
  {
    title: "CPU per request, Portkey / bare proxy",
    measure: "cpuPerRequest",
    above: "portkey",
    below: "bare"
  },
  { title: "CPU per event, Portkey / bare proxy", measure: "cpuPerEvent", above: "portkey", below: "bare" }
]

/** Runs the measurement with the arguments of a command line; resolves when the report is printed and written. */
export const run = async (given: ReadonlyArray<string>) => {
  const options = Options.parse(
    "bench gateway",
    contestants.map(({ name }) => name),
    given
  )
  const sizes = options.quick ? quick : full
  const watchdog = setTimeout(() => {
    console.error(`Given up after ${limitMillis / 1_000} seconds`)
    process.exit(1)
  }, limitMillis)
  await using upstream = await Upstream.start()

  const isThere = ({ file }: Contestant) => existsSync(fileURLToPath(file))
  const profiled = contestants.find(({ name }) => name === options.profile)
  if (profiled !== undefined) {
    if (!isThere(profiled)) throw new Error(`${profiled.title} is not built: ${fileURLToPath(profiled.file)}`)
    await profile(profiled, upstream, sizes)
    clearTimeout(watchdog)
    return
  }

  const asked = contestants.filter(({ name }) => options.only.length === 0 || options.only.includes(name))
  const chosen = asked.filter(isThere)
  const missing = asked.filter((contestant) => !chosen.includes(contestant)).map(({ title }) => title)
  const recording = new Recording.Recording()
  const notes = await measureSpeed(chosen, upstream, sizes, recording)
  await measureMemory(chosen, upstream, recording)
  clearTimeout(watchdog)

  const measure = (name: string, title: string, unit: string, digits: number): Report.Measure => ({
    name,
    title,
    unit,
    digits,
    samples: recording.of(name)
  })

  await Report.publish({
    name: "gateway",
    options,
    contestants,
    missing,
    notes,
    measures: [
      measure("cpuPerRequest", "CPU per request", "µs", 0),
      measure("cpuPerEvent", "CPU per streamed event", "µs", 1),
      {
        ...measure("addedMedian", "added latency p50", "µs", 0),
        samples: recording.added("latencyMedian", "direct")
      },
      {
        ...measure("addedTail", "added latency p99", "µs", 0),
        samples: recording.added("latencyTail", "direct")
      },
      measure("memoryIdle", "memory before", "MB", 0),
      measure("memoryOpen", `memory with ${heldStreams} open streams`, "MB", 0),
      measure("memoryPerStream", "memory per open stream", "kB", 1)
    ],
    ratios: targets,
    checks: {
      "Latency of the upstream itself, µs": {
        p50: recording.medians("latencyMedian")["direct"] ?? Number.NaN,
        p99: recording.medians("latencyTail")["direct"] ?? Number.NaN
      },
      "Events per chunk written (1: each forwarded at once)": recording.medians("eventsPerChunk"),
      "Share of a core used during the long streams (near 1: the pace was too fast)":
        recording.medians("streamLoad"),
      [`Streams still open upstream 1 s after ${heldStreams} clients left (0: cancelled)`]:
        recording.medians("streamsLeft")
    }
  })
}

if (import.meta.main) await run(process.argv.slice(2))
