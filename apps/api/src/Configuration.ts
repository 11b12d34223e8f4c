/**
 * The configuration file from disk, what it makes, and how a changed one takes over while the gateway runs.
 */
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Redis from "effect/persistence/Redis"
import { Call, Settings } from "@llm/core"
import { OpenAi } from "@llm/openai"
import * as UndiciTransport from "@llm/openai/UndiciTransport"
import { Access } from "./Access.ts"
import * as AdminStatus from "./AdminStatus.ts"
import * as ConfigFile from "./ConfigFile.ts"
import * as EmbeddingBatches from "./EmbeddingBatches.ts"
import * as Kept from "./Kept.ts"
import { type Operations, Pipeline } from "./Pipeline.ts"
import * as Policies from "./Policies.ts"
import * as Upstream from "./Upstream.ts"

/** Looked for in the working directory where none is named. */
const usualNames = ["llm.config.yaml", "llm.config.yml", "llm.config.json", "llm.config.ts"]

/** The file that was named is not there, or cannot be read. */
export class ConfigFileUnreadable extends Data.TaggedError("ConfigFileUnreadable")<{
  readonly file: string
  readonly detail?: string | undefined
}> {
  override get message(): string {
    return this.detail === undefined
      ? `${this.file} cannot be read: name another one with --config, or leave that out`
      : `${this.file} cannot be loaded: ${this.detail}`
  }
}

/** A file and what it says. */
export interface Loaded {
  /** Absent where there is none, which is fine. */
  readonly file: string | undefined
  /** As it stood there. */
  readonly text?: string | undefined
  readonly settings: ConfigFile.ConfigFile
}

/** Reads the file of that name, or the usual one where there is one. */
export const load = Effect.fnUntraced(function* (named: string | undefined) {
  const files = yield* FileSystem.FileSystem
  const exists = (name: string) => Effect.orElseSucceed(files.exists(name), () => false)
  let file = named
  for (const name of usualNames) if (file === undefined && (yield* exists(name))) file = name
  const nothing: Loaded = { file, settings: {} }
  if (file === undefined) return nothing
  const text = yield* Effect.orElseSucceed(files.readFileString(file), () => undefined)
  const loaded: Loaded = { file, text, settings: yield* settingsIn(file) }
  return loaded
})

const isModule = (file: string): boolean => /\.[cm]?[jt]s$/u.test(file)

const settingsIn = Effect.fnUntraced(function* (file: string) {
  if (isModule(file)) return yield* ConfigFile.fromValue(yield* exported(file), file)
  const text = yield* Effect.mapError(
    Effect.flatMap(FileSystem.FileSystem, (files) => files.readFileString(file)),
    () => new ConfigFileUnreadable({ file })
  )
  return yield* ConfigFile.parse(text, file)
})

/** The default export of a module, as it is now: what the module imports is loaded once. */
const exported = Effect.fnUntraced(function* (file: string) {
  const files = yield* FileSystem.FileSystem
  yield* Effect.mapError(files.access(file), () => new ConfigFileUnreadable({ file }))
  const now = yield* Clock.currentTimeMillis
  return yield* Effect.tryPromise({
    try: async (): Promise<unknown> => {
      const module: unknown = await import(`${pathToFileURL(path.resolve(file)).href}?at=${now}`)
      if (typeof module === "object" && module !== null && "default" in module) return module.default
      throw new TypeError("it has no default export")
    },
    catch: (cause) =>
      new ConfigFileUnreadable({ file, detail: cause instanceof Error ? cause.message : String(cause) })
  })
})

/** The environment and flags, over what the file says. */
export const environment = (
  settings: ConfigFile.ConfigFile,
  variables: Readonly<Record<string, string | undefined>>,
  flags: Readonly<Record<string, string | undefined>> = {}
): ConfigProvider.ConfigProvider =>
  Settings.fromEnvironment({ ...Policies.environmentOf(settings), ...withoutEmpty(variables) }, flags)

/** A variable that is set to nothing must not hide what the file says. */
const withoutEmpty = (variables: Readonly<Record<string, string | undefined>>) =>
  Object.fromEntries(
    Object.entries(variables).filter(([, value]) => value !== undefined && value.trim() !== "")
  )

/** A call for each deployment and model, to ask the policies about. */
const callsOf = ({ provider }: Settings.Upstream, { deployments }: ConfigFile.ConfigFile) =>
  deployments === undefined
    ? [Call.make({ provider, operation: "chat.create" })]
    : deployments.flatMap(({ models = {}, name, provider: of = "openai" }) => {
        const sent = new Set(Object.values(models))
        return (sent.size === 0 ? [undefined] : [...sent]).map((model) =>
          Call.make({ provider: of, deployment: name, operation: "chat.create", model })
        )
      })

/** What callers may ask for by the names of the file. */
const modelsOf = ({ deployments }: ConfigFile.ConfigFile): ReadonlyArray<string> => [
  ...new Set((deployments ?? []).flatMap(({ models = {} }) => Object.keys(models)))
]

/**
 * Makes the operations that a configuration describes; they live as long as the scope. What `Kept` has of the one before
 * goes on.
 */
export const operations = (settings: ConfigFile.ConfigFile, provider: ConfigProvider.ConfigProvider) =>
  Effect.gen(function* () {
    const upstream = yield* Settings.upstream
    const access = Option.getOrUndefined(yield* Effect.serviceOption(Access))
    const redis = yield* Effect.serviceOption(Redis.Redis)
    const kept = (yield* Kept.Kept) ?? Kept.make()
    const layer = Upstream.layer(upstream, settings).pipe(
      Layer.provideMerge(
        Policies.layer(
          settings,
          access?.policies,
          Option.getOrUndefined(Option.map(redis, (client) => Layer.succeed(Redis.Redis, client))),
          kept
        )
      ),
      Layer.provide(Policies.places(settings, kept)),
      Layer.provide(UndiciTransport.layer),
      Layer.provide(ConfigProvider.layer(provider))
    )
    const context = yield* Layer.build(layer)
    const openai = Context.get(context, OpenAi.OpenAi)
    const made: Operations = {
      openai: { ...openai, raw: yield* EmbeddingBatches.over(settings, openai.raw) },
      status: Effect.provideContext(AdminStatus.read(callsOf(upstream, settings)), context),
      models: modelsOf(settings),
      left: (call) => Effect.provideContext(AdminStatus.left(call), context)
    }
    return made
  }).pipe(Effect.provideService(ConfigProvider.ConfigProvider, provider))

/** SIGHUP asks to read the file again. */
const hangups: Stream.Stream<void> = Stream.callback<void>((queue) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const listener = () => void Queue.offerUnsafe(queue, undefined)
      process.on("SIGHUP", listener)
      return listener
    }),
    (listener) => Effect.sync(() => process.off("SIGHUP", listener))
  )
)

/** What only a start reads. */
const atStart = [
  "server",
  "admin",
  "keys",
  "database",
  "redis",
  "journal",
  "ledger",
  "prices",
  "budgets",
  "unpriced",
  "unavailable",
  "telemetry"
] as const

const fixed = (settings: ConfigFile.ConfigFile): string =>
  JSON.stringify(
    atStart.map((section) => settings[section]),
    (_, value: unknown) => (typeof value === "bigint" ? String(value) : value)
  )

const stays = "The configuration before it stays in force."

/**
 * Follows the file: where it changes, or SIGHUP comes, new requests go by what it says then. A file that is
 * wrong is told of in the log, and the old configuration stays.
 *
 * @param started what the gateway started with
 * @param provider the environment and flags over what a file says
 */
export const layerReload = (
  started: Loaded,
  provider: (settings: ConfigFile.ConfigFile) => ConfigProvider.ConfigProvider
) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { file } = started
      if (file === undefined) return
      const files = yield* FileSystem.FileSystem
      const pipeline = yield* Pipeline
      // Without the scope: what a reload makes lives as long as its last call, and not as this.
      const context = Context.omit(Scope.Scope)(yield* Effect.context<never>())
      const read = Effect.orElseSucceed(files.readFileString(file), () => undefined)
      // What was read at the start, and not what stands there by now.
      let known = started.text

      const reload = Effect.gen(function* () {
        const { settings } = yield* load(file)
        yield* pipeline.replace(
          operations(settings, provider(settings)).pipe(
            Effect.provideService(FileSystem.FileSystem, files),
            Effect.provideContext(context)
          )
        )
        yield* Effect.logInfo(`${file} is in force from now on`)
        if (fixed(settings) !== fixed(started.settings)) {
          yield* Effect.logWarning(`${atStart.join(", ")} are read at the start only: restart for these`)
        }
      }).pipe(
        Effect.provideService(FileSystem.FileSystem, files),
        Effect.catch((error) => Effect.logError(`${error.message}\n${stays}`)),
        // A mistake of ours, or of a module that says the configuration: the next change is read all the same.
        Effect.catchCause((cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.failCause(cause)
            : Effect.logError(`${file} could not be put in force: an unexpected failure\n${stays}`, cause)
        )
      )

      // By content: editors and container platforms replace a file in ways that watchers miss.
      const changes = Stream.fromSchedule(Schedule.spaced("1 second")).pipe(
        Stream.mapEffect(() => read),
        Stream.filter((text) => {
          if (text === undefined || text === known) return false
          known = text
          return true
        })
      )
      yield* Effect.forkScoped(Stream.runForEach(Stream.merge(hangups, changes), () => reload))
    })
  )
