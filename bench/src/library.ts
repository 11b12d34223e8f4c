/** Libraries side by side: the CPU time of the calling process per chat call and per streamed event. */
import * as Schema from "effect/Schema"
import * as Child from "./Child.ts"
import * as Llm from "./library/llm.ts"
import * as Options from "./Options.ts"
import * as Profile from "./Profile.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Upstream from "./Upstream.ts"

/** To add a contestant, add an entry here and its `make` to `children/library.ts`. */
const contestants = [
  { name: "sdk", title: "official SDK", isThere: true },
  { name: "sdk-undici", title: "SDK over undici", isThere: true },
  { name: "llm", title: "@llm/openai", isThere: Llm.make !== undefined }
]

const limitMillis = 90_000
const full = { rounds: 5, warmChats: 3_000, chats: 2_000, streams: 32, shortEvents: 20, longEvents: 300 }
const quick = { ...full, rounds: 3, warmChats: 1_500, chats: 1_000, streams: 16 }

const decodeSpent = Schema.decodeUnknownSync(Schema.Struct({ spent: Schema.Number }))

/** CPU microseconds of the child for `count` calls; 0 events is a call that is not streamed. */
const work = async (child: Child.Child, count: number, events: number) =>
  decodeSpent(await child.ask({ count, events })).spent

const start = async (name: string, upstream: Upstream.Upstream) => {
  const file = new URL("./children/library.ts", import.meta.url)
  const child = Child.start({ name, file, arguments: [name, upstream.origin] })
  await Child.greeting(child)
  return child
}

const ratio = (title: string, measure: string, above: string, atMost?: number): Report.Ratio => ({
  title,
  measure,
  above,
  below: "sdk",
  ...(atMost === undefined ? {} : { target: { atMost } })
})

/** Runs the measurement with the arguments of a command line; resolves when the report is printed and written. */
export const run = async (given: ReadonlyArray<string>) => {
  const options = Options.parse(
    "bench library",
    contestants.map(({ name }) => name),
    given
  )
  const sizes = options.quick ? quick : full
  const watchdog = setTimeout(() => {
    console.error(`Given up after ${limitMillis / 1_000} seconds`)
    process.exit(1)
  }, limitMillis)
  await using stack = new AsyncDisposableStack()
  const upstream = stack.use(await Upstream.start())

  const asked = contestants.filter(({ name }) =>
    options.profile === undefined
      ? options.only.length === 0 || options.only.includes(name)
      : options.profile === name
  )
  const running: Array<Child.Child> = []
  for (const { name, isThere } of asked) if (isThere) running.push(stack.use(await start(name, upstream)))
  for (const child of running) {
    await work(child, sizes.warmChats, 0)
    await work(child, sizes.streams, sizes.longEvents)
  }

  if (options.profile !== undefined) {
    const [child] = running
    if (child === undefined) throw new Error(`${options.profile} is not there to be profiled`)
    await Profile.record(`library-${child.name}-chat`, child, () => work(child, 5 * sizes.chats, 0))
    await Profile.record(`library-${child.name}-stream`, child, () =>
      work(child, 3 * sizes.streams, sizes.longEvents)
    )
    clearTimeout(watchdog)
    return
  }

  const recording = new Recording.Recording()
  for (let round = 0; round < sizes.rounds; round++) {
    for (const child of running) {
      recording.add("cpuPerCall", child.name, (await work(child, sizes.chats, 0)) / sizes.chats)
      const short = await work(child, sizes.streams, sizes.shortEvents)
      const begin = performance.now()
      const long = await work(child, sizes.streams, sizes.longEvents)
      recording.add("streamLoad", child.name, long / 1_000 / (performance.now() - begin))
      const perEvent = (long - short) / sizes.streams / (sizes.longEvents - sizes.shortEvents)
      recording.add("cpuPerEvent", child.name, perEvent)
    }
    process.stderr.write(`round ${round + 1} of ${sizes.rounds}\n`)
  }
  clearTimeout(watchdog)

  const measure = (name: string, title: string, digits: number): Report.Measure => ({
    name,
    title,
    unit: "µs",
    digits,
    samples: recording.of(name)
  })
  await Report.publish({
    name: "library",
    options,
    contestants,
    missing: asked.filter(({ isThere }) => !isThere).map(({ title }) => title),
    notes: [],
    measures: [
      measure("cpuPerCall", "CPU per chat call", 0),
      measure("cpuPerEvent", "CPU per streamed event", 1)
    ],
    ratios: [
      ratio("CPU per chat call, @llm/openai / official SDK", "cpuPerCall", "llm", 0.7),
      ratio("CPU per event, @llm/openai / official SDK", "cpuPerEvent", "llm", 0.7),
      ratio("CPU per chat call, SDK over undici / official SDK", "cpuPerCall", "sdk-undici"),
      ratio("CPU per event, SDK over undici / official SDK", "cpuPerEvent", "sdk-undici")
    ],
    checks: {
      "Share of a core used during the long streams (near 1: the pace was too fast)":
        recording.medians("streamLoad")
    }
  })
}

if (import.meta.main) await run(process.argv.slice(2))
