/**
 * What carries the bytes of a request and of its reply: one exchange over a pool of connections.
 *
 * **Details**
 *
 * Node's own `http` and `https` unless a Layer says otherwise, such as `@llm/openai/UndiciTransport`. A transport has no
 * clock but that of the connection, retries nothing, follows no redirect and asks for no compression: all that is the
 * policies' and the client's.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { OpenAi } from "@llm/openai"
 * import * as UndiciTransport from "@llm/openai/UndiciTransport"
 * import { Layer } from "effect"
 *
 * export const layer = OpenAi.layerConfig.pipe(
 *   Layer.provide(Resilience.layerDefault),
 *   Layer.provide(UndiciTransport.layer)
 * )
 * ```
 */
import * as Context from "effect/Context"
import * as NodeTransport from "./internal/nodeTransport.ts"
import type { Open } from "./internal/transport.ts"

export type { HeaderRecord, Open, Pool, PoolOptions, Target } from "./internal/transport.ts"
export { TransportFailure } from "./internal/transport.ts"

/** The transport that clients are made with; `node:http` unless a Layer is provided. */
export const Transport = Context.Reference<Open>("@llm/openai/Transport", {
  defaultValue: () => NodeTransport.open
})
