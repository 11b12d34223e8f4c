/**
 * The settings that only a server has; keys, retries, timeouts and breakers belong to the libraries.
 */
import { Settings } from "@llm/core"
import * as ByteSize from "effect/ByteSize"
import * as Config from "effect/Config"

/** Decoded settings. */
export interface GatewayConfig extends Settings.Upstream {
  readonly host: string
  readonly port: number
  /** Whether other processes of this machine may listen on the same port; the system spreads connections. */
  readonly reusePort: boolean
  /** The largest request body. */
  readonly bodyLimit: ByteSize.ByteSize
  /** The folder of the database and the journal. */
  readonly data: string
}

/** `LLM_PROVIDER`, `LLM_HOST`, `LLM_PORT`, `LLM_REUSE_PORT`, `LLM_BODY_LIMIT` and `LLM_DATA`, with their defaults. */
export const config: Config.Config<GatewayConfig> = Config.all({
  upstream: Settings.upstream,
  host: Config.NonEmptyString("LLM_HOST").pipe(Config.withDefault("127.0.0.1")),
  port: Config.Port("LLM_PORT").pipe(Config.withDefault(8080)),
  reusePort: Config.Boolean("LLM_REUSE_PORT").pipe(Config.withDefault(false)),
  bodyLimit: Config.ByteSize("LLM_BODY_LIMIT").pipe(Config.withDefault(ByteSize.mebibytes(32))),
  data: Config.NonEmptyString("LLM_DATA").pipe(Config.withDefault(".llm"))
}).pipe(Config.map(({ upstream, ...rest }) => ({ ...upstream, ...rest })))
