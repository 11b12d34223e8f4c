/** Policies side by side: the CPU time of one call through each, and how it grows. */
import * as Schema from "effect/Schema"
import * as Child from "./Child.ts"
import * as Options from "./Options.ts"
import * as Profile from "./Profile.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Statistics from "./Statistics.ts"

/** To add a contestant, add an entry here and its work to `children/policies.ts`. */
const contestants = [
  { name: "bare", title: "no policy", jobs: ["breaker", "limit", "queue", "retry", "all"] },
  { name: "llm", title: "@llm/core", jobs: ["breaker", "limit", "queue", "retry", "all"] },
  { name: "cockatiel", title: "cockatiel", jobs: ["breaker", "limit", "queue", "retry", "all"] },
  { name: "opossum", title: "opossum", jobs: ["breaker", "limit", "all"] },
  { name: "bottleneck", title: "bottleneck", jobs: ["limit", "queue"] }
] as const

const waiting = 100

/** What is the same work for all, and how many calls run at once. */
const shared = [
  { job: "breaker", title: "circuit breaker, closed", size: 1 },
  { job: "limit", title: "16 at once, one call", size: 1 },
  { job: "queue", title: `16 at once, ${waiting} calls`, size: waiting },
  { job: "retry", title: "retry, no failure", size: 1 },
  { job: "all", title: "all together", size: 1 }
]

/** Ours alone: what is counted against the loop without a policy. */
const alone = [
  { job: "loop", title: "loop without a policy" },
  { job: "none", title: "the pipe, no policy on" },
  { job: "all", title: "the pipe, all policies on" },
  { job: "budget", title: "retry budget" },
  { job: "breaker", title: "circuit breaker" },
  { job: "limit", title: "concurrency" },
  { job: "rateLimit", title: "rate limit" },
  { job: "cache", title: "response cache, a hit" }
]

const sizes = [1, 10, 100, 1_000, 10_000, 100_000]

/** What grows with what; the router looks at each deployment, and hardly anybody has more than a hundred. */
const growing = [
  { job: "budget", title: "retry budget by keys", sizes },
  { job: "breaker", title: "circuit breaker by keys", sizes },
  { job: "limit", title: "concurrency by keys", sizes },
  { job: "rateLimit", title: "rate limit by keys", sizes },
  { job: "queue", title: "concurrency by calls at once, most of which wait", sizes },
  { job: "cache", title: "response cache, hits by entries", sizes },
  { job: "singleFlight", title: "single-flight by equal calls at once", sizes },
  { job: "router", title: "router by deployments", sizes: [1, 10, 100, 1_000] }
]

const limitMillis = 240_000
const full = { rounds: 5, calls: 10_000, largest: 100_000 }
const quick = { rounds: 3, calls: 2_000, largest: 10_000 }

const decodeSpent = Schema.decodeUnknownSync(Schema.Struct({ spent: Schema.Number }))

const start = async (name: string) => {
  const file = new URL("./children/policies.ts", import.meta.url)
  const child = Child.start({ name, file, arguments: [name] })
  await Child.greeting(child)
  return child
}

/** CPU microseconds of the child per call, after a warm-up of as many calls. */
const work = async (child: Child.Child, job: string, size: number, calls: number) => {
  // bottleneck and a thousand deployments take half a millisecond a call.
  const slow = child.name === "bottleneck" || (job === "router" && size >= 100)
  const count = Math.max(slow ? calls / 20 : calls, job === "queue" || job === "singleFlight" ? size : 1)
  await child.ask({ job, size, count: Math.min(count, 2_000) })
  return decodeSpent(await child.ask({ job, size, count })).spent / count
}

/** Runs the measurement with the arguments of a command line; resolves when the report is printed and written. */
export const run = async (given: ReadonlyArray<string>) => {
  const options = Options.parse(
    "bench policies",
    contestants.map(({ name }) => name),
    given
  )
  const { calls, largest, rounds } = options.quick ? quick : full
  const watchdog = setTimeout(() => {
    console.error(`Given up after ${limitMillis / 1_000} seconds`)
    process.exit(1)
  }, limitMillis)
  await using stack = new AsyncDisposableStack()
  const asked = contestants.filter(({ name }) =>
    options.profile === undefined
      ? options.only.length === 0 || options.only.includes(name)
      : options.profile === name
  )
  const running = []
  for (const { jobs, name } of asked) running.push({ child: stack.use(await start(name)), jobs })

  if (options.profile !== undefined) {
    for (const { child, jobs } of running) {
      for (const job of jobs) {
        await work(child, job, 1, calls)
        await Profile.record(`policies-${child.name}-${job}`, child, () => work(child, job, 1, 10 * calls))
      }
    }
    clearTimeout(watchdog)
    return
  }

  const recording = new Recording.Recording()
  for (let round = 0; round < rounds; round++) {
    for (const { job, size } of shared) {
      for (const { child, jobs } of running) {
        if (jobs.some((name) => name === job))
          recording.add(job, child.name, await work(child, job, size, calls))
      }
    }
    for (const { child } of running) {
      if (child.name !== "llm") continue
      const costs = new Map<string, number>()
      for (const { job } of alone) costs.set(job, await work(child, job, 1, calls))
      for (const [job, cost] of costs) {
        recording.add(`own ${job}`, "llm", cost)
        if (job === "all") recording.add("over none", "llm", cost - (costs.get("none") ?? Number.NaN))
      }
    }
    process.stderr.write(`round ${round + 1} of ${rounds}\n`)
  }

  const ours = running.find(({ child }) => child.name === "llm")?.child
  const growth: Record<string, Record<string, number>> = {}
  for (const one of ours === undefined ? [] : growing) {
    const values: Record<string, number> = {}
    // The second of two: the first warms the compiler up for this size.
    for (const size of one.sizes.filter((each) => each <= largest)) {
      if (ours !== undefined) values[`${size}:`] = await work(ours, one.job, size, calls)
    }
    growth[`µs of CPU per call, ${one.title}`] = values
    process.stderr.write(`${one.title}\n`)
  }
  clearTimeout(watchdog)

  const over = recording.of("over none").get("llm") ?? []
  const budget = 60
  await Report.publish({
    name: "policies",
    options,
    contestants,
    missing: [],
    notes:
      over.length === 0
        ? []
        : [
            `All policies on cost ${median(over).toFixed(1)} µs over none (target at most ${budget}): ${median(over) <= budget ? "met" : "MISSED"}.`
          ],
    measures: [
      ...shared.map(({ job, title }) => ({
        name: job,
        title,
        unit: "µs",
        digits: 2,
        samples: recording.of(job)
      })),
      ...alone.map(({ job, title }) => ({
        name: `own ${job}`,
        title: `alone: ${title}`,
        unit: "µs",
        digits: 2,
        samples: recording.of(`own ${job}`)
      })),
      {
        name: "over none",
        title: "all policies on, over none",
        unit: "µs",
        digits: 1,
        samples: recording.of("over none")
      }
    ],
    ratios: contestants
      .filter(({ name }) => name !== "llm" && name !== "bare")
      .flatMap(({ jobs, name, title }) =>
        shared
          .filter(({ job }) => jobs.some((one) => one === job))
          .map(({ job, title: what }) => ({
            title: `${what}: @llm/core / ${title}`,
            measure: job,
            above: "llm",
            below: name,
            target: { atMost: 1 }
          }))
      ),
    checks: growth
  })
}

const median = (samples: ReadonlyArray<number>): number => Statistics.summarise(samples).median

if (import.meta.main) await run(process.argv.slice(2))
