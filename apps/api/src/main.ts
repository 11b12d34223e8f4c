/**
 * `llm-gateway`: settings, wiring, and what the terminal says.
 */
import { parseArgs } from "node:util"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Runtime from "effect/Runtime"
import * as HttpServer from "effect/http/HttpServer"
import { Redaction } from "@llm/core"
import * as Accounts from "./Accounts.ts"
import * as AdminServer from "./AdminServer.ts"
import * as ConfigFile from "./ConfigFile.ts"
import * as Configuration from "./Configuration.ts"
import * as Explanations from "./Explanations.ts"
import * as Gateway from "./Gateway.ts"
import * as GatewayConfig from "./GatewayConfig.ts"
import * as Kept from "./Kept.ts"
import * as Pipeline from "./Pipeline.ts"
import * as RedisClient from "./RedisClient.ts"
import * as SecondSignal from "./SecondSignal.ts"
import * as StartError from "./StartError.ts"
import * as TelemetryExport from "./TelemetryExport.ts"
import * as Tls from "./Tls.ts"

const usage = `An OpenAI-compatible gateway with retries, circuit breakers and timeouts.

  npx -y pnpm@12 start [--config FILE] [--check] [--provider openai|simulator] [--host ADDRESS] [--port NUMBER]

  --config FILE   llm.config.yaml, .yml, .json or .ts of the working directory unless told; see llm.config.example.yaml
  --check         reads the configuration, says what is wrong with it, and ends
  --schema        prints the JSON Schema of the file, for editors

Settings (environment; flags win, then the environment, then the file; see .env.example):
  OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_ORG_ID, OPENAI_PROJECT_ID
  LLM_PROVIDER              openai | simulator (openai if a key is set)
  LLM_HOST, LLM_PORT        127.0.0.1, 8080; port 0 takes a free one
  LLM_REUSE_PORT            1: several gateways on one port, each with its own LLM_DATA and LLM_ADMIN_PORT
  LLM_BODY_LIMIT            largest request body (32 MiB)
  LLM_DATA                  folder of the ledger and its journal (.llm)
  LLM_RETRY_TIMES           retries per call (6)
  LLM_RETRY_BASE            first wait, at most (1 second)
  LLM_RETRY_CAP             longest wait (32 seconds)
  LLM_RETRY_MAX_HINT        longest server hint that is waited for (60 seconds)
  LLM_TIMEOUT_CONNECT       5 seconds
  LLM_TIMEOUT_FIRST_EVENT   2 minutes
  LLM_TIMEOUT_IDLE          1 minute
  LLM_TIMEOUT_TOTAL         10 minutes
  LLM_BREAKER               consecutive | rate | none
  LLM_BREAKER_FAILURES      failures that open a circuit (10)
  LLM_BREAKER_OPEN_FOR      30 seconds
  LLM_CACHE                 none | single-flight | memory (none)
  LLM_CACHE_TTL             1 hour
  LLM_CACHE_ENTRIES         1000
  LLM_CACHE_BYTES           64 MiB
  LLM_ADMIN_TOKEN           of the admin API, which is off without it
  LLM_ADMIN_HOST, _PORT     127.0.0.1, 8081
  LLM_RESCUE                none | restart | continue (none): streams that break off
  LLM_LOG_LEVEL             Trace | Debug | Info | Warn | Error | None (Info)
Durations are written as "500 millis", "30 seconds", "2 minutes".

SIGHUP reads the file again, as does a change of it; a wrong one leaves the old one in force.
SIGINT and SIGTERM: nothing new is taken, running streams have 20 seconds to end; a second signal ends at once.
Exit codes: 0 stopped by a signal, 1 could not start, 2 a wrong setting or flag.`

const banner = (
  config: GatewayConfig.GatewayConfig,
  { deployments, server }: ConfigFile.ConfigFile
): string => {
  const url = `${server?.tls === undefined ? "http" : "https"}://${config.host === "0.0.0.0" ? "127.0.0.1" : config.host}:${config.port}/v1`
  const who =
    deployments !== undefined
      ? deployments.map(({ name }) => name).join(", ")
      : config.provider === "openai"
        ? "OpenAI"
        : config.byDefault
          ? "the embedded simulator (OPENAI_API_KEY is not set)"
          : "the embedded simulator"
  return `Gateway on ${url}, answered by ${who}. Ctrl-C stops it. Try:

  curl ${url}/chat/completions -H 'content-type: application/json' -d '{"model":"gpt-6-luna","messages":[{"role":"user","content":"Why is the sky blue?"}]}'
  new OpenAI({ baseURL: "${url}", apiKey: "any" }).chat.completions.create({ model: "gpt-6-luna", messages: [{ role: "user", content: "Why is the sky blue?" }] })
  OPENAI_BASE_URL=${url} OPENAI_API_KEY=any npx -y pnpm@12 oa "Why is the sky blue?"
`
}

const options = {
  provider: { type: "string" },
  host: { type: "string" },
  port: { type: "string" },
  config: { type: "string" },
  check: { type: "boolean" },
  schema: { type: "boolean" },
  help: { type: "boolean", short: "h" }
} as const

const program = Effect.gen(function* () {
  const { values: flags } = yield* Effect.try({
    try: () => parseArgs({ options, strict: true }),
    catch: (cause) => new StartError.UsageError({ cause })
  })
  if (flags.help === true) return yield* Console.log(usage)
  if (flags.schema === true) return yield* Console.log(JSON.stringify(ConfigFile.jsonSchema(), undefined, 2))
  const started = yield* Configuration.load(flags.config)
  const { settings } = started
  const provider = (file: ConfigFile.ConfigFile) =>
    Configuration.environment(file, process.env, {
      LLM_PROVIDER: flags.provider,
      LLM_HOST: flags.host,
      LLM_PORT: flags.port
    })
  const run = Effect.gen(function* () {
    const config = yield* GatewayConfig.config
    const level = yield* Config.LogLevel("LLM_LOG_LEVEL").pipe(Config.withDefault("Info"))
    const tls = settings.server?.tls === undefined ? undefined : yield* Tls.load(settings.server.tls)
    const adminTls = yield* AdminServer.certificate(settings)
    const operations = Configuration.operations(settings, provider(settings))
    if (flags.check === true) {
      yield* Effect.scoped(operations)
      return yield* Console.log(`${started.file ?? "the environment"} is valid`)
    }
    // Said last: who reads it finds both ports open, and which one was free where none was named.
    const told = Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
      Console.log(banner("port" in address ? { ...config, port: address.port } : config, settings))
    )
    const server = Layer.effectDiscard(told).pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          Gateway.layer(config, {
            drainTime: settings.server?.drain,
            cors: settings.server?.cors,
            realtime: settings.server?.realtime,
            hosts: settings.server?.hosts,
            passthrough: settings.server?.passthrough,
            accessLog: settings.telemetry?.accessLog,
            tracing: yield* TelemetryExport.isOn(settings),
            tls
          }),
          Configuration.layerReload(started, provider),
          AdminServer.layer(settings, adminTls)
        )
      ),
      Layer.provide(Pipeline.layer(operations)),
      Layer.provide(Kept.layer),
      Layer.provide(Explanations.layer()),
      Layer.provide(Accounts.layer(settings, config.data)),
      Layer.provide(RedisClient.layer(settings))
    )
    return yield* Layer.launch(server).pipe(Effect.provideService(References.MinimumLogLevel, level))
  })
  const log = Redaction.logger(Logger.formatLogFmt, { patterns: TelemetryExport.patternsOf(settings) })
  return yield* run.pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, provider(settings)),
    Effect.provide(
      Layer.provideMerge(
        TelemetryExport.layer(settings),
        Layer.merge(
          Logger.layer([Logger.withConsoleError(log)]),
          Redaction.layer({ patterns: TelemetryExport.patternsOf(settings) })
        )
      )
    )
  )
}).pipe(Effect.provide(NodeFileSystem.layer))

// A signal is how a server ends well: its streams have been drained by then.
const teardown: Runtime.Teardown = (exit, onExit) =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
    ? onExit(0)
    : Runtime.defaultTeardown(exit, onExit)

SecondSignal.endsAtOnce()
NodeRuntime.runMain(StartError.report(program), { disableErrorReporting: true, teardown })
