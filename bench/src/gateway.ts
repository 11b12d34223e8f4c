/** Gateways side by side: their own CPU time, the latency that they add, and the memory of open streams. */
import { execFileSync } from "node:child_process"
import { setTimeout as sleep } from "node:timers/promises"
import type * as Child from "./Child.ts"
import * as Contestant from "./gateway/Contestant.ts"
import * as Load from "./Load.ts"
import * as Options from "./Options.ts"
import * as Profile from "./Profile.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Statistics from "./Statistics.ts"
import * as Upstream from "./Upstream.ts"

const concurrency = 16
const heldEvents = 5
const limitMillis = 480_000

interface Sizes {
  readonly rounds: number
  readonly warmChats: number
  readonly warmStreams: number
  readonly chats: number
  readonly streams: number
  readonly shortEvents: number
  readonly longEvents: number
  readonly latencies: number
  /** Rounds at half load, and the seconds of each. */
  readonly halfRounds: number
  readonly halfSeconds: number
  readonly held: number
}

const full: Sizes = {
  rounds: 5,
  // As long as V8 goes on to compile: a gateway is judged by its days, not by its first seconds.
  warmChats: 12_000,
  warmStreams: 32,
  chats: 2_000,
  streams: 32,
  shortEvents: 20,
  longEvents: 400,
  latencies: 200,
  halfRounds: 5,
  halfSeconds: 5,
  held: 5_000
}
const quick: Sizes = {
  ...full,
  rounds: 3,
  warmChats: 6_000,
  warmStreams: 16,
  chats: 1_000,
  streams: 16,
  latencies: 100,
  halfRounds: 3,
  halfSeconds: 2,
  held: 1_000
}

/** Of the peers the times of single calls are enough; the bare proxy tells what the machine itself adds at that pace. */
const measuredAtHalfLoad = ["bare", "llm"]

/** Files that a process may have open, sockets included; Node takes the hard limit. */
const openFiles = () => {
  try {
    return Number(execFileSync("sh", ["-c", "ulimit -Hn"], { encoding: "utf8" })) || Infinity
  } catch {
    return Infinity
  }
}

const spent = async (child: Child.Child, work: () => Promise<unknown>) => {
  const before = await child.usage()
  await work()
  return (await child.usage()).cpu - before.cpu
}

const measureSpeed = async (
  chosen: ReadonlyArray<Contestant.Contestant>,
  upstream: Upstream.Upstream,
  sizes: Sizes,
  recording: Recording.Recording
) => {
  await using stack = new AsyncDisposableStack()
  const running: Array<Contestant.Running> = []
  const notes: Array<string> = []
  for (const contestant of chosen) {
    const started = await Contestant.start(contestant, upstream.origin).catch((fault: Error) => fault)
    if (!(started instanceof Error)) running.push(stack.use(started))
    else if (contestant.peer) notes.push(`Not measured: ${started.message}`)
    else throw started
  }
  const direct: Load.Target = { name: "upstream", origin: upstream.origin, headers: {} }

  for (const { share, target, streamFault } of running) {
    await Load.chats(target, share * sizes.warmChats, concurrency)
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
    for (const { name, child, share, target, streamFault } of running) {
      await recordLatency(name, target)
      const count = share * sizes.chats
      const chats = await spent(child, () => Load.chats(target, count, concurrency))
      recording.add("cpuPerRequest", name, chats / count)
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

  for (let round = 0; round < sizes.halfRounds; round++) {
    for (const { name, target } of running) {
      if (!measuredAtHalfLoad.includes(name)) continue
      // Half of what one core would take of ours; the upstream alone at the same pace is what it adds to.
      const costs = recording.medians("cpuPerRequest")
      const perSecond = 500_000 / (costs["llm"] ?? costs[name] ?? Number.NaN)
      const alone = await Load.paced(direct, perSecond, sizes.halfSeconds)
      const through = await Load.paced(target, perSecond, sizes.halfSeconds)
      const add = (measure: string, share: number) =>
        recording.add(
          measure,
          name,
          Statistics.percentile(through, share) - Statistics.percentile(alone, share)
        )
      recording.add("halfLoad", name, perSecond)
      add("halfMedian", 0.5)
      add("halfTail", 0.99)
    }
    process.stderr.write(`half load ${round + 1} of ${sizes.halfRounds}\n`)
  }
  for (const { streamFault } of running) {
    if (streamFault !== undefined) notes.push(`No streams: ${streamFault}`)
  }
  return notes
}

/** In fresh processes, so that what the speed rounds left in the heap is not counted as memory of open streams. */
const measureMemory = async (
  chosen: ReadonlyArray<Contestant.Contestant>,
  upstream: Upstream.Upstream,
  held: number,
  recording: Recording.Recording
): Promise<ReadonlyArray<string>> => {
  const megabyte = 1_024 * 1_024
  const notes: Array<string> = []
  for (const contestant of chosen) {
    await using running = await Contestant.start(contestant, upstream.origin)
    await Load.chats(running.target, 100, concurrency)
    if (running.streamFault !== undefined) continue
    const idle = await running.child.usage()
    const hold = await Load.hold(running.target, held, heldEvents).catch((fault: Error) => fault)
    if (hold instanceof Error) {
      if (!contestant.peer) throw hold
      notes.push(`No memory of ${held} streams: ${hold.message}`)
      continue
    }
    {
      await using _ = hold
      await sleep(1_000)
      const open = await running.child.usage()
      recording.add("memoryIdle", contestant.name, idle.rss / megabyte)
      recording.add("memoryOpen", contestant.name, open.rss / megabyte)
      recording.add("memoryPerStream", contestant.name, (open.rss - idle.rss) / 1_024 / held)
    }
    await sleep(1_000)
    recording.add("streamsLeft", contestant.name, await upstream.openStreams())
    process.stderr.write(`memory of ${contestant.title}\n`)
  }
  return notes
}

const profile = async (contestant: Contestant.Contestant, upstream: Upstream.Upstream, sizes: Sizes) => {
  await using running = await Contestant.start(contestant, upstream.origin)
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
    target: { atMost: 2 }
  },
  {
    title: "CPU per event, llm gateway / bare proxy",
    measure: "cpuPerEvent",
    above: "llm",
    below: "bare",
    target: { atMost: 1.25 }
  },
  {
    title: "CPU per request, Portkey / llm gateway",
    measure: "cpuPerRequest",
    above: "portkey",
    below: "llm",
    target: { atLeast: 5 }
  },
  {
    title: "CPU per request, LiteLLM / llm gateway",
    measure: "cpuPerRequest",
    above: "litellm",
    below: "llm",
    target: { atLeast: 10 }
  },
  {
    title: "CPU per request, llm gateway / without keys",
    measure: "cpuPerRequest",
    above: "llm",
    below: "llm-plain"
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
    Contestant.all.map(({ name }) => name),
    given,
    { held: "streams that are held open for the memory (5000; 1000 with --quick)" }
  )
  const sizes = options.quick ? quick : full
  // A proxy has two sockets for each stream.
  const most = Math.floor((openFiles() - 200) / 2)
  const wanted = options.sizes["held"] ?? sizes.held
  const held = Math.min(wanted, most)
  const watchdog = setTimeout(() => {
    console.error(`Given up after ${limitMillis / 1_000} seconds`)
    process.exit(1)
  }, limitMillis)
  await using upstream = await Upstream.start()

  const profiled = Contestant.all.find(({ name }) => name === options.profile)
  if (profiled !== undefined) {
    const reason = await Contestant.absence(profiled)
    if (reason !== undefined || profiled.native === true) {
      throw new Error(`${profiled.title} cannot be profiled: ${reason ?? "it is no program of Node's"}`)
    }
    await profile(profiled, upstream, sizes)
    clearTimeout(watchdog)
    return
  }

  const chosen: Array<Contestant.Contestant> = []
  const missing: Array<string> = []
  for (const contestant of Contestant.all) {
    if (options.only.length > 0 && !options.only.includes(contestant.name)) continue
    const reason = await Contestant.absence(contestant)
    if (reason === undefined) chosen.push(contestant)
    else missing.push(`${contestant.title} (${reason})`)
  }
  const recording = new Recording.Recording()
  const notes = await measureSpeed(chosen, upstream, sizes, recording)
  const measured = chosen.filter(({ name }) => recording.of("cpuPerRequest").has(name))
  notes.push(...(await measureMemory(measured, upstream, held, recording)))
  clearTimeout(watchdog)
  if (held < wanted) notes.push(`${held} streams held instead of ${wanted}: \`ulimit -Hn\` allows no more.`)

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
    contestants: Contestant.all,
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
      measure("halfMedian", "added latency p50 at half load", "µs", 0),
      measure("halfTail", "added latency p99 at half load", "µs", 0),
      measure("memoryIdle", "memory before", "MB", 0),
      measure("memoryOpen", `memory with ${held} open streams`, "MB", 0),
      measure("memoryPerStream", "memory per open stream", "kB", 1)
    ],
    ratios: targets,
    bounds: [
      { measure: "halfMedian", contestant: "llm", atMost: 1_000 },
      { measure: "halfTail", contestant: "llm", atMost: 5_000 },
      ...(held >= full.held ? [{ measure: "memoryOpen", contestant: "llm", atMost: 500 }] : [])
    ],
    checks: {
      "Calls per second at half load": recording.medians("halfLoad"),
      "Latency of the upstream itself, µs": {
        p50: recording.medians("latencyMedian")["direct"] ?? Number.NaN,
        p99: recording.medians("latencyTail")["direct"] ?? Number.NaN
      },
      "Events per chunk written (1: each forwarded at once)": recording.medians("eventsPerChunk"),
      "Share of a core used during the long streams (near 1: the pace was too fast)":
        recording.medians("streamLoad"),
      [`Streams still open upstream 1 s after ${held} clients left (0: cancelled)`]:
        recording.medians("streamsLeft")
    }
  })
}

if (import.meta.main) await run(process.argv.slice(2))
