/** The gateway on a free port with a simulator behind it, both in this process, over real sockets. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as HttpServer from "effect/http/HttpServer"
import { Resilience } from "@llm/core"
import { Simulator } from "@llm/simulator"
import OpenAI, { type ClientOptions } from "openai"
import * as Explanations from "@llm/api/Explanations"
import * as Gateway from "@llm/api/Gateway"
import type { ConfigFile } from "@llm/api/ConfigFile"
import * as Configuration from "@llm/api/Configuration"
import * as Kept from "@llm/api/Kept"
import * as GatewayConfig from "@llm/api/GatewayConfig"
import * as Pipeline from "@llm/api/Pipeline"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"

/** The gateway's own key. No answer and no log line may show it. */
export const key = "sk-proj-CANARYcanary0123456789abcdefCANARY"

export interface Options {
  /** Environment variables over the defaults of these tests: no breaker, and waits of a millisecond. */
  readonly settings?: Readonly<Record<string, string>>
  readonly simulator?: Simulator.Options
  /** What a configuration file says. */
  readonly file?: ConfigFile
  /** How long running streams may go on at a shutdown. */
  readonly drainTime?: Duration.Input
  /** Told of every retry before its wait. */
  readonly onRetry?: (retry: Resilience.Retry) => void
}

export interface RunningGateway {
  readonly port: number
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string
  /** The official client, with nothing changed but its base URL. */
  readonly client: (options?: ClientOptions) => OpenAI
  readonly simulator: Simulator.Simulator["Service"]
  /** Lines of the gateway's log. */
  readonly logs: ReadonlyArray<string>
  /** Fibers beyond those that the gateway runs without a request. */
  readonly fibers: () => number
  /** All fibers of the gateway. */
  readonly allFibers: () => number
  /** Takes another configuration for what comes from now on. */
  readonly reload: (file: ConfigFile) => Effect.Effect<void>
  /** Shuts the gateway down; the scope does it otherwise. */
  readonly stop: Effect.Effect<void>
}

const defaults = {
  LLM_PROVIDER: "openai",
  LLM_BREAKER: "none",
  LLM_RETRY_BASE: "1 millis",
  OPENAI_API_KEY: key
}

export const make = Effect.fnUntraced(function* (options: Options = {}) {
  const simulator = yield* Simulator.make(options.simulator)
  const logs: Array<string> = []
  let fibers = 0
  const count: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      fibers += 1
    },
    recordFiberEnd: () => {
      fibers -= 1
    }
  }
  const scope = yield* Scope.fork(yield* Effect.scope)
  const provider = (file: ConfigFile) =>
    Configuration.environment(file, { ...defaults, OPENAI_BASE_URL: simulator.url, ...options.settings })
  const operations = (file: ConfigFile) => Configuration.operations(file, provider(file))
  const settings = provider(options.file ?? {})
  const config = yield* Effect.provideService(
    GatewayConfig.config.pipe(Effect.map((read) => ({ ...read, port: 0 }))),
    ConfigProvider.ConfigProvider,
    settings
  )
  const server = Gateway.layer(config, {
    drainTime: options.drainTime,
    cors: options.file?.server?.cors,
    passthrough: options.file?.server?.passthrough
  }).pipe(
    Layer.provideMerge(Pipeline.layer(operations(options.file ?? {}))),
    Layer.provideMerge(Kept.layer),
    Layer.provide(Explanations.layer()),
    Layer.provide(NodeFileSystem.layer),
    Layer.provide(ConfigProvider.layer(settings)),
    Layer.provide(Logger.layer([Logger.map(Logger.formatLogFmt, (line) => void logs.push(line))]))
  )
  const context = yield* Layer.buildWithScope(server, scope).pipe(
    Effect.provideService(Metric.FiberRuntimeMetrics, count),
    Effect.provideService(Resilience.OnRetry, (retry) => Effect.sync(() => options.onRetry?.(retry)))
  )
  // The gateway's own, which run as long as it does; they start with the first turns of the event loop.
  yield* turns(20)
  const idle = fibers
  const { address } = Context.get(context, HttpServer.HttpServer)
  const port = "port" in address ? address.port : 0
  const origin = `http://127.0.0.1:${port}`
  const running: RunningGateway = {
    port,
    origin,
    client: (more) => new OpenAI({ baseURL: `${origin}/v1`, apiKey: "any", ...more }),
    simulator,
    logs,
    fibers: () => fibers - idle,
    allFibers: () => fibers,
    reload: (file) =>
      Context.get(context, Pipeline.Pipeline)
        .replace(Effect.provide(operations(file), NodeFileSystem.layer))
        .pipe(Effect.provideContext(context), Effect.orDie),
    stop: Scope.close(scope, Exit.void)
  }
  return running
})

/** Lets the event loop turn. */
export const turns = (count: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let left = count
    const turn = () => (left-- === 0 ? resume(Effect.void) : setImmediate(turn))
    turn()
  })

/** The request of most tests. */
export const question = (text = "Why is the sky blue?", model = "gpt-6-luna") => ({
  model,
  messages: [{ role: "user" as const, content: text }]
})

/** One turn of the event loop after the other until it holds; the test's own time limit is the end. */
export const eventually = (holds: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let turn: NodeJS.Immediate | undefined
    const look = () => {
      if (holds()) resume(Effect.void)
      else turn = setImmediate(look)
    }
    look()
    return Effect.sync(() => clearImmediate(turn))
  })
