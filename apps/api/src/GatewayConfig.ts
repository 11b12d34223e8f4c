/**
 * The settings that only a server has; keys, retries, timeouts and breakers belong to the libraries.
 */
import { Settings } from "@llm/core"
import * as ByteSize from "effect/ByteSize"
import * as Config from "effect/Config"
import * as Schema from "effect/Schema"

/** Decoded settings. */
export interface GatewayConfig extends Settings.Upstream {
  readonly host: string
  /** 0 for one that is free. */
  readonly port: number
  /** Whether other processes of this machine may listen on the same port; the system spreads connections. */
  readonly reusePort: boolean
  /** The largest request body. */
  readonly bodyLimit: ByteSize.ByteSize
  /** The folder of the database and the journal. */
  readonly data: string
}

const Port = Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 65_535 }))

/** `LLM_PROVIDER`, `LLM_HOST`, `LLM_PORT`, `LLM_REUSE_PORT`, `LLM_BODY_LIMIT` and `LLM_DATA`, with their defaults. */
export const config: Config.Config<GatewayConfig> = Config.all({
  upstream: Settings.upstream,
  host: Config.NonEmptyString("LLM_HOST").pipe(Config.withDefault("127.0.0.1")),
  port: Config.schema(Port, "LLM_PORT").pipe(Config.withDefault(8080)),
  reusePort: Config.Boolean("LLM_REUSE_PORT").pipe(Config.withDefault(false)),
  bodyLimit: Config.ByteSize("LLM_BODY_LIMIT").pipe(Config.withDefault(ByteSize.mebibytes(32))),
  data: Config.NonEmptyString("LLM_DATA").pipe(Config.withDefault(".llm"))
}).pipe(Config.map(({ upstream, ...rest }) => ({ ...upstream, ...rest })))
