/**
 * The gateway as one Layer: server and routes over the operations of a `Pipeline`.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServer from "effect/http/HttpServer"
import type { ServeError } from "effect/http/HttpServerError"
import * as DrainingServer from "./DrainingServer.ts"
import { Front } from "./Front.ts"
import type { GatewayConfig } from "./GatewayConfig.ts"
import * as HealthRoutes from "./HealthRoutes.ts"
import * as Hosts from "./Hosts.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import * as Origins from "./Origins.ts"
import type { Pipeline } from "./Pipeline.ts"
import * as Readiness from "./Readiness.ts"
import * as ReferencePage from "./ReferencePage.ts"
import * as Realtime from "./Realtime.ts"
import * as Tls from "./Tls.ts"

/** What the section `server` of a configuration says beside host, port and limits. */
export interface Options {
  /** How long running streams may go on once the Layer is closed; 20 seconds unless told. */
  readonly drainTime?: Duration.Input | undefined
  /** Origins whose pages may call; none unless told. */
  readonly cors?: ReadonlyArray<string> | undefined
  /** Names by which those who have no key may call, beside addresses and private ones; see `Hosts`. */
  readonly hosts?: ReadonlyArray<string> | undefined
  /** Paths below `/v1` that are passed on beside the known ones: `*` stands for anything; none unless told. */
  readonly passthrough?: ReadonlyArray<string> | undefined
  /** How long Realtime sessions may last. */
  readonly realtime?: Realtime.Limits | undefined
  /** Plain HTTP unless told. */
  readonly tls?: Tls.Tls | undefined
  /** A line of the log for every request; none unless told. */
  readonly accessLog?: boolean | undefined
  /** Whether spans are made; they are not unless told. */
  readonly tracing?: boolean | undefined
}

/** Ended streams are given this long to reach their readers. */
const farewell = Duration.seconds(1)

/** The server over any upstream. Fails with `ServeError` where the port is taken. */
export const layer = (
  config: GatewayConfig,
  options: Options = {}
): Layer.Layer<HttpServer.HttpServer, ServeError, Pipeline> => {
  const drainTime = options.drainTime ?? "20 seconds"
  const origins = Origins.make(options.cors ?? [])
  const accessLog = options.accessLog ?? false
  const front = new Front()
  const routes = OpenAiRoutes.layer({
    bodyLimit: config.bodyLimit,
    passthrough: options.passthrough ?? [],
    origins,
    accessLog,
    // Whoever wants spans wants the server's own too: the router makes them.
    front: options.tracing === true ? undefined : front
  })
  const realtime = Realtime.layer({
    bodyLimit: config.bodyLimit,
    origins,
    accessLog,
    limits: options.realtime
  })
  const hosts = Hosts.make(options.tls === undefined ? [config.host, ...(options.hosts ?? [])] : ["*"])
  return Readiness.drainOnClose(drainTime).pipe(
    Layer.provideMerge(
      HttpRouter.serve(
        Layer.mergeAll(
          HealthRoutes.layer,
          ReferencePage.layer(false),
          Layer.provide(Layer.merge(realtime, routes), Hosts.layer(hosts))
        ),
        {
          disableLogger: true,
          disableListenLog: true
        }
      )
    ),
    Layer.provideMerge(
      listening(
        config,
        Duration.sum(Duration.fromInputUnsafe(drainTime), farewell),
        origins,
        front,
        options.tls
      )
    ),
    Layer.provide(Readiness.Readiness.layer),
    Layer.provide(Layer.succeed(References.TracerEnabled, options.tracing ?? false))
  )
}

const listening = (
  { host, port, reusePort }: GatewayConfig,
  drainTime: Duration.Input,
  { mark }: Origins.Origins,
  front: Front,
  tls: Tls.Tls | undefined
): Layer.Layer<HttpServer.HttpServer, ServeError> =>
  Layer.unwrap(
    Effect.sync(() => {
      const { follow, server } = serverOf(tls, (request, response) => {
        // Before all answers: whoever gives them, they carry the mark.
        mark?.(request, response)
        return front.keeps(request, response)
      })
      server.maxHeadersCount = 200
      // Closed after the drain and before the server: who does not take a reply must not hold the end up.
      const release = Layer.effectDiscard(
        Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))
      )
      return Layer.provideMerge(
        Layer.merge(release, follow),
        NodeHttpServer.layerServer(() => server, {
          host,
          port,
          reusePort,
          gracefulShutdownTimeout: drainTime
        })
      )
    })
  )

/** The server, and what follows its certificate. */
const serverOf = (tls: Tls.Tls | undefined, front: DrainingServer.Front) => {
  const limits = {
    requestTimeout: 0,
    headersTimeout: 60_000,
    keepAliveTimeout: 65_000,
    maxHeaderSize: 32 * 1024
  }
  if (tls === undefined) return { server: DrainingServer.make(limits, { front }), follow: Layer.empty }
  const server = DrainingServer.makeSecure(limits, tls.certificate, { front })
  return { server, follow: Tls.follow(server, tls) }
}
