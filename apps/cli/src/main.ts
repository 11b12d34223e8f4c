/**
 * The program behind `oa`: arguments in, exit code out.
 */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import { admin } from "./commands/admin.ts"
import { ask } from "./commands/ask.ts"
import { explain } from "./commands/explain.ts"
import { simulate } from "./commands/simulate.ts"
import * as CommandLine from "./CommandLine.ts"
import * as Environment from "./Environment.ts"
import * as Failure from "./Failure.ts"
import * as Help from "./Help.ts"
import * as Screen from "./Screen.ts"
import * as Settings from "./Settings.ts"
import * as Stdin from "./Stdin.ts"
import * as Stop from "./Stop.ts"

/** Replaced by the build with the package's version. */
declare const OA_VERSION: string | undefined

const version = typeof OA_VERSION === "undefined" ? "0.0.0-source" : OA_VERSION

const root = Command.make("oa").pipe(
  Command.withDescription(
    "Ask language models from the terminal: OpenAI, and every server that speaks its API."
  ),
  Command.withExamples([
    { command: 'oa "why is the sky blue"' },
    { command: 'echo "some text" | oa "summarise"', description: "stdin is added to the prompt" },
    { command: 'git diff | oa ask -s "commit message, one line"' },
    { command: 'oa ask --json "three colours" | jq -r .data.text' },
    { command: 'oa --simulate "hello"', description: "no key needed" }
  ]),
  Command.withSubcommands([ask, explain, simulate, admin])
)

/** Help and versions are answers, so they go to stdout; a wrong invocation is told by `tell`, on stderr. */
const presenter = (screen: Screen.Screen["Service"]) =>
  CliOutput.layerPresenter({
    present: (event) => {
      switch (event._tag) {
        case "Help":
          return event.reason === "Requested" ? screen.answer(Help.page(event.helpDoc)) : Effect.void
        case "Version":
          return screen.answer(`${event.name} ${event.version}\n`)
        case "InvalidInvocation":
          return Effect.void
      }
    }
  })

/** A wrong invocation in the parser's words. */
const usageErrorOf = (error: CliError.CliError): Failure.UsageError => {
  if (error._tag !== "ShowHelp") return new Failure.UsageError({ message: error.message })
  const [first] = error.errors
  const path = error.commandPath.join(" ")
  if (first?._tag === "UnrecognizedOption") {
    const [suggestion] = first.suggestions
    return new Failure.UsageError({
      message: `unknown flag ${first.option}${suggestion === undefined ? "" : `; did you mean ${suggestion}?`}`,
      hint: `see ${path} --help; a short flag and its value stand apart, such as -m gpt-6-luna`
    })
  }
  return new Failure.UsageError({
    message: first?.message ?? "a command is missing",
    hint: `see ${path} --help`
  })
}

const logLevel = Config.withDefault(
  Config.Literals(["trace", "debug", "info", "warn", "error", "fatal", "none"], "LLM_LOG_LEVEL"),
  "error"
)

const levels = {
  trace: "Trace",
  debug: "Debug",
  info: "Info",
  warn: "Warn",
  error: "Error",
  fatal: "Fatal",
  none: "None"
} as const

/** Logs go to stderr, as everything does that is no answer. */
const layerLog = Layer.unwrap(
  Effect.map(Settings.read(logLevel), (level) =>
    Layer.merge(
      Logger.layer([Logger.make((entry) => process.stderr.write(`${Logger.formatLogFmt.log(entry)}\n`))]),
      Layer.succeed(References.MinimumLogLevel, levels[level])
    )
  )
)

const program = (argv: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const screen = yield* Screen.Screen
    const stdin = yield* Stdin.Stdin
    const plan = CommandLine.plan(argv, stdin.kind)
    switch (plan._tag) {
      case "Reject":
        return yield* plan.error
      case "Topic":
        return yield* screen.answer(Help.topic(plan.topic))
      case "Run":
        return yield* Command.runWith(root, { version, renderErrors: true })(plan.args).pipe(
          Effect.provideService(CommandLine.BareWord, plan.bareWord),
          Effect.provide([
            Environment.layer,
            presenter(screen),
            CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
          ])
        )
    }
  })

/** What is told of an exit, with its code; nothing for a success. */
const reportOf = (exit: Exit.Exit<void, Failure.Failure | CliError.CliError>): Failure.Report | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "None") return Failure.reportDefect(Cause.squash(exit.cause))
  return Failure.report(CliError.isCliError(error.value) ? usageErrorOf(error.value) : error.value)
}

/** A second signal within this many milliseconds belongs to the same key press: wrappers send it again. */
const sameKeyPress = 100

/** The longest that a stopped program waits for a reader that does not read. */
const patience = Duration.seconds(1)

/** The key itself, however it looks, must not come back in what a server says. */
const withoutKey = (text: string): string => {
  const key = Option.getOrElse(Effect.runSync(Effect.orDie(keySetting)), () => "")
  return key.length < 8 ? text : text.replaceAll(key, `…${key.slice(-4)}`)
}

const keySetting = Config.option(Config.String("OPENAI_API_KEY"))

/**
 * Runs the program and ends the process.
 *
 * @param argv what follows the program's name
 */
export const main = (argv: ReadonlyArray<string>): void => {
  const json = CommandLine.hasFlag(argv, "--json")
  const screen = Effect.runSync(Screen.make({ json, noColor: CommandLine.hasFlag(argv, "--no-color") }))
  let reason: Stop.Reason | undefined
  const fiber = Effect.runFork(
    program(argv).pipe(
      Effect.tapDefect((defect) => Effect.logDebug("internal error", defect)),
      Effect.provide([Layer.succeed(Screen.Screen, screen), Stdin.layer, layerLog]),
      Effect.provideService(Stop.Stop, () => reason)
    )
  )

  let stoppedAt = 0
  const stop = (why: Stop.Reason) => {
    const now = performance.now()
    if (reason === undefined) {
      reason = why
      stoppedAt = now
      fiber.interruptUnsafe()
      Effect.runFork(
        Effect.andThen(
          Effect.sleep(patience),
          Effect.sync(() => process.exit(Stop.exitCode[why]))
        )
      )
    } else if (why === "interrupted" && now - stoppedAt > sameKeyPress) {
      process.exit(Stop.exitCode[why])
    }
  }
  process.on("SIGINT", () => stop("interrupted"))
  process.on("SIGTERM", () => stop("terminated"))
  const tell = (report: Failure.Report) => {
    const text = json ? Failure.toJson(report) : Failure.toText(report, screen.red)
    return screen.note(withoutKey(text.trimEnd()))
  }
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    // `oa … | head -1`: nobody reads on, so the call is given up without a word.
    if (error.code === "EPIPE") return stop("unread")
    if (reason === undefined) {
      Effect.runFork(
        tell(
          Failure.report(new Failure.StartFailed({ message: `stdout cannot be written: ${error.message}` }))
        )
      )
    }
    stop("unwritable")
  })
  process.stderr.on("error", () => {})

  fiber.addObserver((exit) => {
    const report = reason === undefined ? reportOf(exit) : undefined
    const end = () => {
      // Not before both streams are out: the last write may be the one that fails.
      process.stdout.write("", () =>
        process.stderr.write("", () =>
          process.exit(reason === undefined ? (report?.exitCode ?? 0) : Stop.exitCode[reason])
        )
      )
    }
    if (report === undefined) end()
    else Effect.runFork(tell(report)).addObserver(end)
  })
}
