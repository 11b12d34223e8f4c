/**
 * A body that goes on to the provider while it comes in: never held, and read once.
 */
import type { IncomingMessage } from "node:http"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Passthrough } from "@llm/openai"
import { boundaryOf, type Field, FormFields } from "./FormFields.ts"
import type { Incoming } from "./Incoming.ts"
import { BodyTooSlow, BodyUnreadable, Pieces, welcome } from "./RequestBody.ts"

/** Two readers could take the form for different things. */
export class FormAmbiguous extends Schema.TaggedError<FormAmbiguous>()("FormAmbiguous", {
  /** As it follows "The form ". */
  problem: Schema.String
}) {
  override get message(): string {
    return `the form ${this.problem}`
  }
}

/** A form, as far as its head tells. */
export interface Form {
  readonly upload: Passthrough.Upload | undefined
  readonly fields: ReadonlyMap<string, Field>
  /** Whether all that could name a model was read: without it the model may come after a large file. */
  readonly isComplete: boolean
}

/** How far a form is read before it is sent on, in bytes: a model that is named by then is known. */
const longestHead = 1024 * 1024

const sizeOf = ({ headers }: IncomingMessage): number | undefined => {
  const { "content-length": length } = headers
  return length === undefined ? undefined : Number(length)
}

const hasBody = (incoming: IncomingMessage): boolean =>
  incoming.headers["transfer-encoding"] !== undefined || (sizeOf(incoming) ?? 0) > 0

type Body = AsyncIterator<Uint8Array>

// The answer to a body that was left unread still has to go out on its connection.
const piecesOf = (incoming: IncomingMessage): Body => incoming.iterator({ destroyOnReturn: false })

const streamOf = (open: () => Body, idle: Duration.Input) =>
  Stream.fromAsyncIterable<Uint8Array, BodyUnreadable | BodyTooSlow>(
    { [Symbol.asyncIterator]: open },
    () => new BodyUnreadable()
  ).pipe(Stream.timeoutOrElse({ duration: idle, orElse: () => Stream.fail(new BodyTooSlow()) }))

/**
 * The body of a request; `undefined` where it has none.
 *
 * @param idle how long the client may be silent within it
 */
export const make = (incoming: Incoming, idle: Duration.Input): Passthrough.Upload | undefined => {
  const { request } = incoming
  if (!hasBody(request)) return undefined
  return {
    size: sizeOf(request),
    contentType: request.headers["content-type"] ?? "application/octet-stream",
    stream: streamOf(() => {
      welcome(incoming)
      return piecesOf(request)
    }, idle)
  }
}

/** The body as it came; a later field that contradicts what was read ends it before its end. */
const asItCame = (head: ReadonlyArray<Uint8Array>, rest: Body, fields: FormFields, idle: Duration.Input) =>
  Stream.concat(
    Stream.fromIterable(head),
    Stream.mapEffect(
      streamOf(() => rest, idle),
      (piece) => {
        fields.push(piece)
        const { problem } = fields
        return problem === undefined ? Effect.succeed(piece) : Effect.fail(new FormAmbiguous({ problem }))
      }
    )
  )

/**
 * The body of a request, and what its form says: read up to its first file with its model known, its end, 1 MiB, or
 * for as long as a client may be silent; and sent on from its first byte.
 *
 * @param idle how long the client may be silent within it
 * @returns fails with `FormAmbiguous` where the model cannot be told for sure
 */
export const peek = (
  incoming: Incoming,
  idle: Duration.Input
): Effect.Effect<Form, BodyUnreadable | BodyTooSlow | FormAmbiguous, Scope.Scope> =>
  Effect.gen(function* () {
    const upload = make(incoming, idle)
    const boundary = upload === undefined ? undefined : boundaryOf(upload.contentType)
    if (upload === undefined || boundary === undefined) {
      return { upload, fields: new Map(), isComplete: true }
    }
    welcome(incoming)
    const fields = new FormFields(boundary)
    const pieces = piecesOf(incoming.request)
    yield* Effect.addFinalizer(() => Effect.sync(() => void pieces.return?.()))
    const next = Effect.timeoutOrElse(
      Effect.tryPromise({ try: () => pieces.next(), catch: () => new BodyUnreadable() }),
      { duration: idle, orElse: () => Effect.fail(new BodyTooSlow()) }
    )
    const head = new Pieces()
    let ended = false
    const clock = yield* Clock.Clock
    const until = clock.currentTimeMillisUnsafe() + Duration.toMillis(idle)
    const isEnough = () =>
      fields.isOver ||
      head.size >= longestHead ||
      (fields.hasFile && fields.found.has("model")) ||
      // Whoever sends a byte now and then has no head held for ever.
      clock.currentTimeMillisUnsafe() > until
    while (!isEnough()) {
      const { done, value } = yield* next
      ended = done === true
      if (done === true) break
      head.add(value)
      fields.push(value)
      const { problem } = fields
      if (problem !== undefined) return yield* new FormAmbiguous({ problem })
    }
    const { size } = upload
    const model = fields.found.get("model")
    return {
      fields: fields.found,
      isComplete: ended || fields.isOver || model !== undefined,
      upload: {
        ...upload,
        stream: asItCame(head.all, pieces, fields, idle),
        renamed:
          model === undefined
            ? undefined
            : (name) => {
                const { whole } = head
                const renamed = [whole.subarray(0, model.start), Buffer.from(name), whole.subarray(model.end)]
                const change = Buffer.byteLength(name) - (model.end - model.start)
                return {
                  size: size === undefined ? undefined : size + change,
                  stream: asItCame(renamed, pieces, fields, idle)
                }
              }
      }
    }
  })
