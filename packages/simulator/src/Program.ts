/** The simulator as a program: flags in, exit code out. */
import { Cause, Effect, Exit, Result, Schema } from "effect"
import { readFile, writeFile } from "node:fs/promises"
import { parseArgs } from "node:util"
import * as Script from "./Script.ts"
import * as Simulator from "./Simulator.ts"

/** How it was asked to run. */
export interface Settings {
  readonly host: string
  readonly port: number
  readonly seed: number
  /** A file of fixtures and faults. */
  readonly script: string | undefined
  /** Requests that no fixture matches are refused. */
  readonly strict: boolean
  /** Requests are not held to the API's rules. */
  readonly permissive: boolean
  /** Serves the control endpoint. */
  readonly control: boolean
  /** An upstream to record from; the recording is written to `script`. */
  readonly record: string | undefined
}

/** It cannot start, in words for people. */
export class CannotStart extends Schema.TaggedError<CannotStart>()("CannotStart", {
  message: Schema.String
}) {}

const usage = `Usage: simulator [flags]
  --host <name>      where to listen (127.0.0.1)
  --port <number>    9099; 0 takes a free one
  --seed <number>    decides the replies (0)
  --script <file>    fixtures and faults, YAML or JSON
  --strict           refuse requests that no fixture matches
  --permissive       do not hold requests to the API's rules
  --control          serve /__simulator/: journal, faults, scripts
  --record <url>     pass on what no fixture matches, and write it to the script's file at the end
  --help             this page
`

/** Reads flags. Fails with a sentence that names the wrong one. */
export const parse = (argv: ReadonlyArray<string>): Result.Result<Settings | "help", string> => {
  const read = Result.try({
    try: () =>
      parseArgs({
        args: [...argv],
        options: {
          host: { type: "string", default: "127.0.0.1" },
          port: { type: "string", default: "9099" },
          seed: { type: "string", default: "0" },
          script: { type: "string" },
          strict: { type: "boolean", default: false },
          permissive: { type: "boolean", default: false },
          control: { type: "boolean", default: false },
          record: { type: "string" },
          help: { type: "boolean", default: false }
        }
      }).values,
    catch: (error) => (error instanceof Error ? error.message : String(error))
  })
  return Result.flatMap(read, (values): Result.Result<Settings | "help", string> => {
    if (values.help) return Result.succeed("help")
    for (const name of ["port", "seed"] as const) {
      if (!/^\d{1,10}$/.test(values[name]))
        return Result.fail(`--${name} takes a whole number, got "${values[name]}"`)
    }
    const { control, host, permissive, strict } = values
    return Result.succeed({
      host,
      port: Number(values.port),
      seed: Number(values.seed),
      script: values.script,
      strict,
      permissive,
      control,
      record: values.record
    })
  })
}

/** Starts one that lives as long as the scope. Fails with `CannotStart` for a wrong file, flag, or port. */
export const start = Effect.fnUntraced(function* (settings: Settings) {
  const { control, host, permissive, port, record, script: file, seed, strict } = settings
  if (record !== undefined && (file === undefined || !URL.canParse(record))) {
    return yield* new CannotStart({
      message:
        file === undefined
          ? "--record needs --script, the file to write to"
          : `--record takes a URL, got "${record}"`
    })
  }
  const script = file === undefined ? {} : yield* load(file, record !== undefined)
  const simulator = yield* Simulator.make({
    host,
    port,
    seed,
    strict: !permissive,
    control,
    script: { ...script, ...(strict ? { unmatched: "refuse" as const } : {}) },
    ...(record === undefined ? {} : { record: { upstream: record } })
  }).pipe(Effect.mapError(({ message }) => new CannotStart({ message })))
  if (record !== undefined && file !== undefined) {
    yield* Effect.addFinalizer(() =>
      Effect.flatMap(simulator.recording, (recorded) => save(file, script, recorded))
    )
  }
  return simulator
})

const load = Effect.fnUntraced(function* (file: string, mayBeMissing: boolean) {
  const text = yield* Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (error) => {
      const code = error instanceof Error && "code" in error ? String(error.code) : String(error)
      return new CannotStart({ message: `${file} cannot be read: ${code}` })
    }
  }).pipe(Effect.catch((error) => (mayBeMissing ? Effect.succeed("") : Effect.fail(error))))
  return yield* Effect.mapError(Script.parse(text, file), ({ message }) => new CannotStart({ message }))
})

/** What was recorded goes behind what was there. */
const save = (file: string, known: Script.Script, recorded: Script.Script): Effect.Effect<void> =>
  Effect.orDie(
    Effect.tryPromise(() =>
      writeFile(
        file,
        Script.format({
          ...recorded,
          ...known,
          fixtures: [...(known.fixtures ?? []), ...(recorded.fixtures ?? [])]
        })
      )
    )
  )

/** Runs until a signal; gives the exit code. */
export const run = async (argv: ReadonlyArray<string>): Promise<number> => {
  const settings = parse(argv)
  if (Result.isFailure(settings)) {
    process.stderr.write(`${settings.failure}\n${usage}`)
    return 2
  }
  const { success } = settings
  if (success === "help") {
    process.stdout.write(usage)
    return 0
  }
  const program = Effect.gen(function* () {
    const simulator = yield* start(success)
    process.stdout.write(`${simulator.url}\n`)
    return yield* Effect.never
  }).pipe(
    Effect.scoped,
    Effect.catchTag("CannotStart", ({ message }) =>
      Effect.sync(() => {
        process.stderr.write(`${message}\n`)
        return 1
      })
    )
  )
  const stop = new AbortController()
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort())
  const exit = await Effect.runPromiseExit(program, { signal: stop.signal })
  if (Exit.isSuccess(exit)) return exit.value
  if (Cause.hasInterruptsOnly(exit.cause)) return 0
  process.stderr.write(`${Cause.pretty(exit.cause)}\n`)
  return 1
}
