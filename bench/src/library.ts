/**
 * Libraries side by side: the CPU time of the calling process per chat call, streamed event, piece of a tool call and
 * thousand embeddings; and what each weighs before its first call.
 */
import * as Schema from "effect/Schema"
import * as Child from "./Child.ts"
import * as Footprint from "./library/Footprint.ts"
import * as Options from "./Options.ts"
import * as Profile from "./Profile.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Upstream from "./Upstream.ts"

/** To add a contestant, add an entry here, its `make` to `children/library.ts` and its program to `library/programs/`. */
const contestants = [
  { name: "sdk", title: "official SDK" },
  { name: "sdk-undici", title: "SDK over undici" },
  { name: "ai-sdk", title: "Vercel ai" },
  { name: "langchain", title: "LangChain" },
  { name: "llm", title: "@llm/openai" }
]
const peers = contestants.filter(({ name }) => name !== "llm" && name !== "sdk-undici")

/** Kilobytes, after gzip, that the policies and Effect may add to the official SDK. */
const bundleAllowance = 150

const limitMillis = 300_000
const full = {
  rounds: 5,
  warmChats: 2_000,
  chats: 600,
  streams: 10,
  shortEvents: 20,
  longEvents: 400,
  embeddings: 2,
  imports: 5
}
const quick = { ...full, rounds: 3, warmChats: 1_000, chats: 400, imports: 3 }

interface Work {
  readonly kind: "chat" | "stream" | "tools" | "embed"
  readonly count: number
  /** Of each stream. */
  readonly events?: number
}

const decodeSpent = Schema.decodeUnknownSync(Schema.Struct({ spent: Schema.Number }))

/** CPU microseconds of the child for so many calls. */
const work = async (child: Child.Child, asked: Work) => decodeSpent(await child.ask(asked)).spent

const start = async (name: string, upstream: Upstream.Upstream) => {
  const file = new URL("./children/library.ts", import.meta.url)
  const child = Child.start({ name, file, arguments: [name, upstream.origin] })
  await Child.greeting(child)
  return child
}

/** The slope between short and long streams, so that the cost of the request itself falls out. */
const perEvent = async (child: Child.Child, kind: Work["kind"], sizes: typeof full) => {
  const { longEvents, shortEvents, streams: count } = sizes
  const short = await work(child, { kind, count, events: shortEvents })
  const begin = performance.now()
  const long = await work(child, { kind, count, events: longEvents })
  return {
    load: long / 1_000 / (performance.now() - begin),
    cpu: (long - short) / count / (longEvents - shortEvents)
  }
}

const measureSpeed = async (
  running: ReadonlyArray<Child.Child>,
  sizes: typeof full,
  recording: Recording.Recording
) => {
  for (let round = 0; round < sizes.rounds; round++) {
    for (const child of running) {
      const { name } = child
      recording.add(
        "cpuPerCall",
        name,
        (await work(child, { kind: "chat", count: sizes.chats })) / sizes.chats
      )
      const text = await perEvent(child, "stream", sizes)
      recording.add("cpuPerEvent", name, text.cpu)
      recording.add("streamLoad", name, text.load)
      recording.add("cpuPerDelta", name, (await perEvent(child, "tools", sizes)).cpu)
      const embedded = await work(child, { kind: "embed", count: sizes.embeddings })
      recording.add("cpuPerThousand", name, embedded / sizes.embeddings / 1_000)
    }
    process.stderr.write(`round ${round + 1} of ${sizes.rounds}\n`)
  }
}

/** Returns the minified bytes of each bundle by package. */
const measureFootprint = async (
  names: ReadonlyArray<string>,
  sizes: typeof full,
  recording: Recording.Recording
) => {
  for (let round = 0; round < sizes.imports; round++) {
    for (const name of names) {
      const specifiers = Footprint.imports[name]
      if (specifiers === undefined) continue
      const { elapsed, spent } = await Footprint.importing(name, specifiers)
      recording.add("importTime", name, elapsed)
      recording.add("importCpu", name, spent)
    }
  }
  const packages: Record<string, Readonly<Record<string, number>>> = {}
  for (const name of names) {
    if (Footprint.imports[name] === undefined) continue
    const bundle = await Footprint.bundle(name)
    if (bundle === undefined) continue
    recording.add("bundle", name, bundle.gzip / 1_000)
    recording.add("lazyBundle", name, bundle.lazy / 1_000)
    packages[name] = bundle.packages
  }
  process.stderr.write("imports and bundles\n")
  return packages
}

/** Whether our bundle stays within the allowance; `undefined` where it was not made. */
const bundleNote = (bundles: Readonly<Record<string, number>>) => {
  const { llm, sdk } = bundles
  if (llm === undefined || sdk === undefined) return undefined
  const added = llm - sdk
  return `The bundle of @llm/openai is ${added.toFixed(0)} kB larger than the official SDK's (target at most ${bundleAllowance}): ${added <= bundleAllowance ? "met" : "MISSED"}.`
}

/** Kilobytes of the largest packages, the rest in one. */
const largest = (packages: Readonly<Record<string, number>>) => {
  const sizes = Object.entries(packages)
  const rest = sizes.slice(6).reduce((sum, [, size]) => sum + size, 0)
  return Object.fromEntries(
    [...sizes.slice(0, 6), ...(rest === 0 ? [] : [["others", rest] as const])].map(([name, size]) => [
      name,
      size / 1_000
    ])
  )
}

const ratio = (
  { name, title }: { readonly name: string; readonly title: string },
  what: string,
  measure: string,
  atMost?: number
): Report.Ratio => ({
  title: `${what}, @llm/openai / ${title}`,
  measure,
  above: "llm",
  below: name,
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
  for (const { name } of asked) running.push(stack.use(await start(name, upstream)))
  for (const child of running) {
    await work(child, { kind: "chat", count: sizes.warmChats })
    await work(child, { kind: "stream", count: sizes.streams, events: sizes.longEvents })
    await work(child, { kind: "tools", count: sizes.streams, events: sizes.longEvents })
    await work(child, { kind: "embed", count: sizes.embeddings })
  }

  if (options.profile !== undefined) {
    const [child] = running
    if (child === undefined) throw new Error(`${options.profile} is not there to be profiled`)
    const { longEvents: events, streams } = sizes
    const jobs: ReadonlyArray<Work> = [
      { kind: "chat", count: 5 * sizes.chats },
      { kind: "stream", count: 3 * streams, events },
      { kind: "tools", count: 3 * streams, events },
      { kind: "embed", count: 5 * sizes.embeddings }
    ]
    for (const job of jobs)
      await Profile.record(`library-${child.name}-${job.kind}`, child, () => work(child, job))
    clearTimeout(watchdog)
    return
  }

  const recording = new Recording.Recording()
  await measureSpeed(running, sizes, recording)
  const packages = await measureFootprint(
    asked.map(({ name }) => name),
    sizes,
    recording
  )
  clearTimeout(watchdog)
  const bundles = recording.medians("bundle")
  const note = bundleNote(bundles)

  const measure = (name: string, title: string, unit: string, digits: number): Report.Measure => ({
    name,
    title,
    unit,
    digits,
    samples: recording.of(name)
  })
  await Report.publish({
    name: "library",
    options,
    contestants,
    missing: Object.keys(bundles).length === 0 ? ["Bundles (esbuild)"] : [],
    notes: note === undefined ? [] : [note],
    measures: [
      measure("cpuPerCall", "CPU per chat call", "µs", 0),
      measure("cpuPerEvent", "CPU per streamed event", "µs", 1),
      measure("cpuPerDelta", "CPU per tool-call delta", "µs", 1),
      measure("cpuPerThousand", "CPU per 1,000 embeddings", "ms", 1),
      measure("importTime", "import, by the clock", "ms", 0),
      measure("importCpu", "import, CPU", "ms", 0),
      measure("bundle", "bundle, minified and gzip", "kB", 0)
    ],
    ratios: peers.flatMap((peer) => {
      const atMost = peer.name === "sdk" ? 0.7 : 1
      return [
        ratio(peer, "CPU per chat call", "cpuPerCall", atMost),
        ratio(peer, "CPU per event", "cpuPerEvent", atMost),
        ratio(peer, "CPU per tool-call delta", "cpuPerDelta", 1),
        ratio(peer, "CPU per 1,000 embeddings", "cpuPerThousand", 1),
        ratio(peer, "import, CPU", "importCpu")
      ]
    }),
    checks: {
      "Share of a core used during the long streams (near 1: the pace was too fast)":
        recording.medians("streamLoad"),
      "Left out of the bundle until import() asks for it, kB gzip": recording.medians("lazyBundle"),
      ...Object.fromEntries(
        contestants.flatMap(({ name, title }) => {
          const sizesOf = packages[name]
          return sizesOf === undefined
            ? []
            : [[`Bundle of ${title} by package, kB minified`, largest(sizesOf)] as const]
        })
      )
    }
  })
}

if (import.meta.main) await run(process.argv.slice(2))
