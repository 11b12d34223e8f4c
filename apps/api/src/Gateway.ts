/**
 * The gateway as one Layer: server, routes, the pipe, and the simulator where no provider is set.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServer from "effect/http/HttpServer"
import type { ServeError } from "effect/http/HttpServerError"
import type { Resilience } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import { DrainingServer } from "./DrainingServer.ts"
import type { GatewayConfig } from "./GatewayConfig.ts"
import * as HealthRoutes from "./HealthRoutes.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import * as Readiness from "./Readiness.ts"

/** Who answers: OpenAI as the environment says, or a simulator of our own. */
export const upstream = (
  config: GatewayConfig
): Layer.Layer<OpenAi.OpenAi, Config.ConfigError | Simulator.SimulatorError, Resilience.Resilience> =>
  config.provider === "openai" ? OpenAi.layerConfig : Layer.provide(simulated, Simulator.layer())

const simulated = Layer.unwrap(
  Effect.map(Simulator.Simulator, (simulator) =>
    OpenAi.layer({ apiKey: Redacted.make("simulator"), baseUrl: simulator.url, provider: "simulator" })
  )
)

/**
 * The server over any upstream. Fails with `ServeError` where the port is taken.
 *
 * @param options.drainTime how long running streams may go on once the Layer is closed; 20 seconds unless told
 */
export const layer = (
  config: GatewayConfig,
  options?: { readonly drainTime?: Duration.Input }
): Layer.Layer<HttpServer.HttpServer, ServeError, OpenAi.OpenAi> =>
  Readiness.drainOnClose.pipe(
    Layer.provideMerge(
      HttpRouter.serve(Layer.mergeAll(HealthRoutes.layer, OpenAiRoutes.layer(config.bodyLimit)), {
        disableLogger: true,
        disableListenLog: true
      })
    ),
    Layer.provideMerge(listening(config, options?.drainTime ?? "20 seconds")),
    Layer.provide(Readiness.Readiness.layer),
    // Spans come with telemetry; until something reads them, they are only work.
    Layer.provide(Layer.succeed(References.TracerEnabled, false))
  )

const listening = (
  { host, port }: GatewayConfig,
  drainTime: Duration.Input
): Layer.Layer<HttpServer.HttpServer, ServeError> =>
  Layer.unwrap(
    Effect.sync(() => {
      const server = new DrainingServer({
        requestTimeout: 0,
        headersTimeout: 60_000,
        keepAliveTimeout: 65_000
      })
      // Closed after the drain and before the server: who does not take a reply must not hold the end up.
      const release = Layer.effectDiscard(
        Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))
      )
      return Layer.provideMerge(
        release,
        NodeHttpServer.layerServer(() => server, { host, port, gracefulShutdownTimeout: drainTime })
      )
    })
  )
