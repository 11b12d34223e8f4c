/** A gateway with keys and accounts on a free port, in this process, in front of an upstream of the test. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as HttpServer from "effect/http/HttpServer"
import { type LedgerStore, Redaction, Settings, UsageLedger } from "@llm/core"
import * as Accounts from "@llm/api/Accounts"
import type { ConfigFile } from "@llm/api/ConfigFile"
import * as Configuration from "@llm/api/Configuration"
import * as Explanations from "@llm/api/Explanations"
import * as Gateway from "@llm/api/Gateway"
import * as GatewayConfig from "@llm/api/GatewayConfig"
import * as KeyStore from "@llm/api/KeyStore"
import * as Pipeline from "@llm/api/Pipeline"
import type { Tls } from "@llm/api/Tls"
import type * as VirtualKey from "@llm/api/VirtualKey"
import { key } from "./RunningGateway.ts"

export interface Options {
  /** Ends in `/v1`. */
  readonly upstream: string
  readonly settings?: Readonly<Record<string, string>>
  readonly file?: ConfigFile
  /** How long running streams may go on at a shutdown. */
  readonly drainTime?: Duration.Input
  readonly tls?: Tls
}

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-team-"))),
  (name) => Effect.sync(() => rmSync(name, { recursive: true, force: true }))
)

/** Starts it, with the team `red`; unless told nothing is retried, and no circuit opens. */
export const make = Effect.fnUntraced(function* (options: Options) {
  const { file = {}, settings, tls, upstream } = options
  const logs: Array<string> = []
  const provider = Settings.fromEnvironment({
    LLM_PROVIDER: "openai",
    LLM_BREAKER: "none",
    LLM_RETRY_TIMES: "0",
    OPENAI_API_KEY: key,
    OPENAI_BASE_URL: upstream,
    ...settings
  })
  const config = yield* Effect.provideService(
    GatewayConfig.config.pipe(Effect.map((read) => ({ ...read, port: 0 }))),
    ConfigProvider.ConfigProvider,
    provider
  )
  const { server, telemetry } = file
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(
    Gateway.layer(config, {
      drainTime: options.drainTime,
      tls,
      cors: server?.cors,
      hosts: server?.hosts,
      realtime: server?.realtime,
      passthrough: server?.passthrough,
      accessLog: telemetry?.accessLog
    }).pipe(
      Layer.provide(Pipeline.layer(Configuration.operations(file, provider))),
      Layer.provide(Explanations.layer()),
      Layer.provideMerge(Accounts.layer(file, yield* folder)),
      Layer.provide(NodeFileSystem.layer),
      Layer.provide(ConfigProvider.layer(provider)),
      Layer.provide(
        Logger.layer([Logger.map(Redaction.logger(Logger.formatLogFmt), (line) => void logs.push(line))])
      )
    ),
    scope
  )
  const keys = Context.get(context, KeyStore.KeyStore)
  const ledger = Context.get(context, UsageLedger.UsageLedger)
  const { address } = Context.get(context, HttpServer.HttpServer)
  const port = "port" in address ? address.port : 0
  yield* keys.createTeam("test", "red", {})
  return {
    port,
    origin: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    logs,
    keys,
    /** A key, and its secret. */
    create: (asked: Partial<VirtualKey.Settings> = {}) =>
      Effect.map(keys.create("test", { team: "red", ...asked }), (issued) => ({
        id: issued.key.id,
        secret: Redacted.value(issued.secret)
      })),
    /** The rows of calls, attempts left out, once there are any. */
    calls: Effect.andThen(
      ledger.flush,
      Effect.map(Stream.runCollect(ledger.rows({})), (rows) => rows.filter(({ number }) => number === 0))
    ).pipe(Effect.repeat({ until: (rows) => rows.length > 0 })),
    /** What the ledger has of a key, once all of it is written. */
    rowsOf: (keyId: string): Effect.Effect<ReadonlyArray<LedgerStore.Row>> =>
      Effect.orDie(Effect.andThen(ledger.flush, Stream.runCollect(ledger.rows({ where: { keyId } })))),
    /** Shuts the gateway down; the scope does it otherwise. */
    stop: Scope.close(scope, Exit.void)
  }
})
