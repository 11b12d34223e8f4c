/**
 * Our gateway at half load for minutes, before a provider with random faults and callers of whom some leave: does its
 * memory stay flat, does it give everything back, and is every answered call in its ledger once?
 */
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { setTimeout as sleep } from "node:timers/promises"
import { parseArgs } from "node:util"
import * as Schema from "effect/Schema"
import * as Child from "./Child.ts"
import * as FreePort from "./FreePort.ts"
import * as Admin from "./gateway/Admin.ts"
import * as Contestant from "./gateway/Contestant.ts"
import * as Database from "./gateway/Database.ts"
import * as Load from "./Load.ts"
import * as Report from "./Report.ts"
import * as Callers from "./soak/Callers.ts"

const usage = `Usage: bench soak [options]
  --minutes <n>   how long the load lasts; 10 unless told
  --rate <n>      calls per second; half of what one core takes unless told
  --seed <n>      decides which requests have which fault; 1 unless told
  --help          this text`

/** What the provider does wrong, and to which share of the requests. */
const faults: ReadonlyArray<{ readonly fault: string; readonly chance: number; readonly stream?: boolean }> =
  [
    { fault: "status:503", chance: 0.02 },
    { fault: "status:500", chance: 0.01 },
    { fault: "status:429;retry-after-ms=50", chance: 0.02 },
    { fault: "reset:headers", chance: 0.01 },
    { fault: "close:headers", chance: 0.01 },
    { fault: "close:after", chance: 0.02 },
    { fault: "html", chance: 0.005 },
    { fault: "truncated-body", chance: 0.005, stream: false },
    { fault: "no-headers", chance: 0.002 },
    { fault: "slow-headers:300ms", chance: 0.05 },
    { fault: "cut:3", chance: 0.02, stream: true },
    { fault: "reset:5", chance: 0.02, stream: true },
    { fault: "error-event:3", chance: 0.02, stream: true },
    { fault: "stall:4", chance: 0.005, stream: true },
    { fault: "no-done", chance: 0.01, stream: true },
    { fault: "slow-body:30ms", chance: 0.5, stream: true }
  ]

/** Short, so that what hangs is given up many times within the run. */
const settings = {
  LLM_RETRY_BASE: "50 millis",
  LLM_RETRY_CAP: "1 second",
  LLM_TIMEOUT_FIRST_EVENT: "3 seconds",
  LLM_TIMEOUT_IDLE: "2 seconds",
  LLM_TIMEOUT_TOTAL: "20 seconds",
  LLM_LOG_LEVEL: "None"
}

const warmMillis = 6_000
const settleMillis = 60_000
/** How much memory may grow, in per cent of it per minute: what is above doubles within the day's first two hours. */
const mostPerMinute = 1
/** Shorter runs tell nothing of growth: pools and compiled code still settle. */
const judgedMinutes = 5

const Vitals = Schema.Struct({
  cpu: Schema.Number,
  rss: Schema.Number,
  heapUsed: Schema.Number,
  open: Schema.Record(Schema.String, Schema.Number)
})
type Vitals = typeof Vitals.Type
const decodeVitals = Schema.decodeUnknownSync(Vitals)

const vitalsOf = async (child: Child.Child) => decodeVitals(await child.ask("vitals"))

interface Sample extends Vitals {
  readonly minute: number
}

/** Growth per minute by least squares, in per cent of the mean. */
const slope = (samples: ReadonlyArray<Sample>, value: (sample: Sample) => number) => {
  const mean = (of: (sample: Sample) => number) =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length
  const time = mean(({ minute }) => minute)
  const level = mean(value)
  const above = mean((sample) => (sample.minute - time) * (value(sample) - level))
  const below = mean(({ minute }) => (minute - time) ** 2)
  return ((above / below) * 100) / level
}

/** What is open beyond the beginning, by kind. */
const beyond = (baseline: Vitals, now: Vitals) =>
  Object.entries(now.open).filter(([kind, count]) => count > (baseline.open[kind] ?? 0))

const listOpen = (open: ReadonlyArray<readonly [string, number]>) =>
  open.map(([kind, count]) => `${kind} ${count}`).join(", ")

const decodeCalls = Schema.decodeUnknownSync(
  Schema.Array(Schema.Struct({ call_id: Schema.String, times: Schema.Number }))
)

/** How often each call stands in the ledger as a call. */
const ledgerOf = (folder: string) => {
  const database = new DatabaseSync(join(folder, "data", "llm.db"), { readOnly: true })
  const rows = database
    .prepare("SELECT call_id, count(*) AS times FROM llm_ledger_rows WHERE number = 0 GROUP BY call_id")
    .all()
  database.close()
  return new Map(decodeCalls(rows).map(({ call_id, times }) => [call_id, times]))
}

const megabytes = (bytes: number) => bytes / 1_024 / 1_024

interface Plan {
  readonly minutes: number
  readonly rate: number | undefined
  readonly seed: number
}

const read = (given: ReadonlyArray<string>): Plan | undefined => {
  const { values } = parseArgs({
    args: [...given],
    options: {
      minutes: { type: "string", default: "10" },
      rate: { type: "string" },
      seed: { type: "string", default: "1" },
      help: { type: "boolean", default: false }
    }
  })
  const minutes = Number(values.minutes)
  const rate = values.rate === undefined ? undefined : Number(values.rate)
  const isRight = minutes > 0 && (rate === undefined || rate > 0) && /^\d{1,6}$/.test(values.seed)
  if (!values.help && isRight) return { minutes, rate, seed: Number(values.seed) }
  console.log(usage)
  process.exitCode = values.help ? 0 : 2
  return undefined
}

/** The gateway with a key, and the simulator behind it. */
const start = async (seed: number) => {
  await using stack = new AsyncDisposableStack()
  const { path } = stack.use(await Contestant.folder())
  const script = join(path, "faults.json")
  const rules = faults.map(({ chance, fault, stream }, index) => ({
    fault,
    chance,
    seed: seed * 100 + index,
    ...(stream === undefined ? {} : { when: { stream } })
  }))
  await writeFile(script, JSON.stringify({ faults: rules }))
  const upstreamPort = await FreePort.find()
  stack.use(
    Child.start({
      name: "simulator",
      file: new URL("../../packages/simulator/dist/bin.js", import.meta.url),
      arguments: ["--port", String(upstreamPort), "--seed", String(seed), "--script", script]
    })
  )
  const place = {
    upstream: `http://127.0.0.1:${upstreamPort}`,
    port: await FreePort.find(),
    adminPort: await FreePort.find(),
    folder: path
  }
  const gateway = stack.use(
    Child.start({
      name: "llm gateway",
      file: Contestant.llmFile,
      flags: ["--expose-gc"],
      folder: path,
      environment: { ...Contestant.llmEnvironment(place), ...settings }
    })
  )
  await Promise.race([Load.listening(place.port), gateway.ended])
  const key = await Admin.makeKey(place.adminPort)
  const owned = stack.move()
  return { gateway, key, place, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

/** Runs the measurement with the arguments of a command line; sets the exit code where a target is missed. */
export const run = async (given: ReadonlyArray<string>) => {
  const plan = read(given)
  if (plan === undefined) return
  await using started = await start(plan.seed)
  const { gateway, key, place } = started
  const callers = Callers.make(`http://127.0.0.1:${place.port}`, key)
  const baseline = await vitalsOf(gateway)

  let calls = 0
  /** Calls without a pause for so long; gives what each cost. */
  const rush = async (millis: number) => {
    const until = performance.now() + millis
    const before = await gateway.usage()
    const first = calls
    const caller = async () => {
      while (performance.now() < until) {
        calls += 1
        await callers.next()
      }
    }
    await Promise.all(Array.from({ length: 32 }, caller))
    return ((await gateway.usage()).cpu - before.cpu) / (calls - first)
  }
  // What the compiler needs at first is not in the price of a call.
  await rush(warmMillis)
  const perCall = await rush(warmMillis)
  const rate = plan.rate ?? 500_000 / perCall
  console.log(
    `${perCall.toFixed(0)} µs of CPU per call of the mix; ${rate.toFixed(0)} calls per second for ${plan.minutes} minutes\n`
  )

  const samples: Array<Sample> = []
  const running = new Set<Promise<void>>()
  const begin = performance.now()
  const minute = () => (performance.now() - begin) / 60_000
  const interval = Math.min(30_000, (plan.minutes * 60_000) / 20)
  let sent = 0
  let mostRunning = 0
  let sampling: Promise<void> | undefined
  let nextSample = interval
  const sample = async () => {
    const vitals = await vitalsOf(gateway)
    samples.push({ ...vitals, minute: minute() })
    const sockets = vitals.open["TCPSocketWrap"] ?? 0
    console.log(
      `minute ${minute().toFixed(1).padStart(4)}: ${megabytes(vitals.rss).toFixed(0)} MB resident, ` +
        `${megabytes(vitals.heapUsed).toFixed(1)} MB heap, ${sockets} sockets, ${vitals.open["Timeout"] ?? 0} timers, ` +
        `${running.size} calls run, ${sent} sent`
    )
  }
  while (minute() < plan.minutes) {
    for (const due = (minute() * 60 * rate) | 0; sent < due; sent++) {
      const call = callers.next().finally(() => running.delete(call))
      running.add(call)
    }
    mostRunning = Math.max(mostRunning, running.size)
    if (minute() * 60_000 >= nextSample && sampling === undefined) {
      nextSample += interval
      sampling = sample().finally(() => (sampling = undefined))
    }
    await sleep(2)
  }
  await sampling
  await Promise.all(running)
  await callers.close()

  let after = await vitalsOf(gateway)
  const giveUp = performance.now() + settleMillis
  while (beyond(baseline, after).length > 0 && performance.now() < giveUp) {
    await sleep(1_000)
    after = await vitalsOf(gateway)
  }
  await Database.written(place.adminPort)
  await gateway.stop()
  const ledger = ledgerOf(place.folder)
  const missing = [...callers.answered].filter((id) => ledger.get(id) !== 1)

  console.log("\nHow calls ended:")
  console.log(Report.table([...callers.ends].toSorted().map(([end, count]) => [end, String(count)])))
  for (const text of new Set(callers.wrong.slice(0, 20))) console.log(`wrong: ${text}`)
  const later = samples.filter(({ minute: at }) => at >= plan.minutes / 2)
  const growth = {
    rss: slope(later, ({ rss }) => rss),
    heap: slope(later, ({ heapUsed }) => heapUsed)
  }
  const open = beyond(baseline, after)
  // More than faults hold back: their waits are a few seconds for a few calls of a hundred.
  if (mostRunning > rate * 5) {
    console.log(
      `${mostRunning} calls ran at once: the machine had less than half a core to give. Try --rate.`
    )
  }
  const judged = plan.minutes >= judgedMinutes
  const verdicts: ReadonlyArray<readonly [target: string, met: boolean | undefined, found: string]> = [
    [
      `resident memory grows by less than ${mostPerMinute} % per minute in the second half`,
      judged ? growth.rss < mostPerMinute : undefined,
      `${growth.rss.toFixed(2)} %`
    ],
    [
      `heap after collection grows by less than ${mostPerMinute} % per minute in the second half`,
      judged ? growth.heap < mostPerMinute : undefined,
      `${growth.heap.toFixed(2)} %`
    ],
    [
      "no handle open after the load beyond those of the start",
      open.length === 0,
      open.length === 0 ? "none" : listOpen(open)
    ],
    [
      "every answered call is in the ledger once",
      missing.length === 0,
      `${callers.answered.size} answered, ${ledger.size} in the ledger, ${missing.length} not once`
    ],
    [
      "no answer is cut without a word",
      callers.wrong.length === 0,
      `${callers.wrong.length} of ${calls + sent} calls`
    ]
  ]
  console.log()
  for (const [target, met, found] of verdicts) {
    const verdict = met === undefined ? `not judged below ${judgedMinutes} minutes` : Report.verdict(met)
    console.log(`target ${target}: ${verdict} (${found})`)
  }
  if (missing.length > 0) console.log(`Not once in the ledger: ${missing.slice(0, 5).join(", ")}`)
  await Report.write("soak", plan.minutes < 10, {
    minutes: plan.minutes,
    seed: plan.seed,
    callsPerSecond: rate,
    samples,
    ends: Object.fromEntries(callers.ends),
    verdicts: verdicts.map(([target, met, found]) => ({ target, met, found }))
  })
  if (verdicts.some(([, met]) => met === false)) process.exitCode = 1
}

if (import.meta.main) await run(process.argv.slice(2))
