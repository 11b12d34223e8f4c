/**
 * What a guard is.
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Call from "../../Call.ts"
import type * as InvalidSetting from "../../InvalidSetting.ts"
import type * as RequestTexts from "../requestTexts.ts"

/** The body of a request as JSON; fields that nobody knows are kept. */
export type JsonObject = RequestTexts.JsonObject

/** What a guard sees before it is sent. */
export interface Request {
  readonly call: Call.Call
  readonly body: JsonObject
}

/** What a guard sees before it is given. */
export interface Reply {
  readonly call: Call.Call
  /** All that the model wrote; of a stream, too, at its end. */
  readonly text: string
}

/** A guard's no. What it says is redacted, cut, and shown to the caller. */
export class Refusal extends Schema.TaggedError<Refusal>()("Refusal", {
  detail: Schema.String,
  /** The field of the request that is to blame. */
  param: Schema.optional(Schema.String),
  /** 400 unless told: 403 says that it is not for this caller. */
  httpStatus: Schema.optional(Schema.Literals([400, 403]))
}) {
  override get message(): string {
    return this.detail
  }
}

/** One guard. */
export interface Guard {
  readonly name: string
  /** Which calls it looks at; all unless told. */
  readonly applies?: ((call: Call.Call) => boolean) | undefined
  readonly before?: ((request: Request) => Effect.Effect<Request, Refusal>) | undefined
  readonly after?: ((reply: Reply) => Effect.Effect<void, Refusal>) | undefined
}

/** A guard that is still to be made, from settings that may be impossible and services that it needs. */
export type Making<R = never> = Effect.Effect<Guard, InvalidSetting.InvalidSetting, R>
