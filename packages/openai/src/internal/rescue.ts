/**
 * Reads a stream to its end across deployments: where it breaks off, another call goes on, as the policy
 * of `Rescue` allows.
 *
 * The reader sees one stream. Each broken answer is settled, and its connection given up, before the next
 * is asked for.
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Call from "@llm/core/Call"
import * as LlmError from "@llm/core/LlmError"
import type * as Rescue from "@llm/core/Rescue"
import type * as Resilience from "@llm/core/Resilience"
import type * as ResponseCache from "@llm/core/ResponseCache"
import * as Router from "@llm/core/Router"
import * as Usage from "@llm/core/Usage"
import type { ChatChunk, Opened, Step } from "./chatStream.ts"
import * as Continuation from "./continuation.ts"
import * as EventStream from "./eventStream.ts"
import { Joint, type Rule } from "./joint.ts"
import * as Splice from "./splice.ts"

/** What is to be rescued, and with what. */
export interface Options {
  readonly policy: Rescue.Policy
  readonly resilience: Resilience.Resilience["Service"]
  readonly call: Call.Call
  /** JSON of the request, for the model as a deployment calls it, and for that deployment. */
  readonly body: (model: string | undefined, deployment: string) => string | Uint8Array
  /** Makes one exchange and opens its stream, with all of it read. */
  readonly ask: (
    attempt: Resilience.Attempt,
    body: string | Uint8Array
  ) => Effect.Effect<Opened, LlmError.ExchangeError, Scope.Scope>
}

/** The second answer is not the rest of the first. */
class Inexact extends Data.TaggedError("Inexact") {}

/** An answer that is being read. */
interface Part {
  readonly opened: Opened
  readonly scope: Scope.Closeable
  readonly splice: Splice.Splice
  readonly carried: number
  /** How far its own steps have been read: before the first, among them, after the last. */
  read: "nothing" | "some" | "all"
}

/** Failures of a continuation that a restart need not share. */
const isRefusal = ({ _tag }: LlmError.LlmError): boolean =>
  _tag === "InvalidRequest" || _tag === "ContextLengthExceeded" || _tag === "RequestTooLarge"

const encoder = new TextEncoder()
const done = "data: [DONE]\n\n"

/** Opens a stream that is rescued where it breaks off. */
export const open = Effect.fnUntraced(function* (options: Options) {
  const { body, call, policy, resilience } = options
  const outer = yield* Effect.scope
  const clock = yield* Clock.Clock
  const startedAt = clock.currentTimeMillisUnsafe()
  const firstScope = yield* Scope.fork(outer)
  let total = Number.POSITIVE_INFINITY
  const first = yield* Scope.provide(
    resilience.run(call, (attempt) => {
      total = attempt.limits.total
      return options.ask(attempt, body(attempt.call.model, attempt.call.deployment))
    }),
    firstScope
  )
  const endsAt = Math.min(call.deadline ?? Number.POSITIVE_INFINITY, startedAt + total)

  let part: Part | undefined
  let cause: LlmError.StreamInterrupted | undefined
  let text = ""
  let tokens = 0
  let events = 0
  let beyondText = false
  let left = policy.attempts
  let restartOnly = policy.strategy === "restart"
  let usage: Usage.Usage | undefined
  const broken: Array<Splice.Spent> = []
  const avoid: Array<string> = [...(call.avoid ?? [])]
  /** By deployment, what forbids to ask it again right away: a quota that is used up, a hint to wait. */
  const shut = new Map<string, LlmError.ExchangeError>()

  const giveUp = Effect.suspend(() =>
    cause === undefined
      ? Effect.die(new Error("a stream was given up that had not broken"))
      : Effect.fail(EventStream.retold(cause, text, events))
  )

  /** Asks for the rest, once; `undefined` where a continuation was refused. */
  const askAgain = Effect.fnUntraced(function* (head: ChatChunk) {
    const scope = yield* Scope.fork(outer)
    const delivered = { text, tokens }
    let continued = false
    const again: Call.Call = {
      ...call,
      id: undefined,
      rescues: first.call.id,
      avoid: [...avoid],
      deadline: endsAt === Number.POSITIVE_INFINITY ? undefined : endsAt
    }
    const answer = yield* Effect.result(
      Scope.provide(
        resilience.run(again, (attempt) => {
          const { deployment } = attempt.call
          const reason = shut.get(deployment)
          // Said once, so that the pipe does with it what it would have done before the first word.
          if (shut.delete(deployment) && reason !== undefined) return Effect.fail(reason)
          const whole = body(attempt.call.model, deployment)
          const capability = policy.capabilities.get(deployment)
          const request = restartOnly || capability === undefined ? undefined : Continuation.read(whole)
          const continuation = request && Continuation.make(request, delivered, capability ?? "restart")
          continued = continuation !== undefined
          const rule: Rule = continuation?.rule ?? { _tag: "Restart" }
          return Effect.map(options.ask(attempt, continuation?.body ?? whole), (opened) => ({ opened, rule }))
        }),
        scope
      )
    )
    if (Result.isFailure(answer)) {
      yield* Scope.close(scope, Exit.void)
      if (!continued || !isRefusal(answer.failure)) return yield* giveUp
      restartOnly = true
      return undefined
    }
    const { opened, rule } = answer.success
    const carried = rule._tag === "Restart" ? 0 : tokens
    const splice = Splice.make({ joint: new Joint(text, rule), head, broken: [...broken], carried })
    const next: Part = { opened, scope, splice, carried, read: "nothing" }
    return next
  })

  /** Leaves what broke, and puts another answer in its place. */
  const recover = Effect.fnUntraced(function* (error: LlmError.StreamInterrupted | Inexact) {
    const { call: from, said } = part?.opened ?? first
    if (part === undefined) {
      text = said.text
      tokens = said.pieces
      events = said.events
      beyondText = said.beyondText
    }
    broken.push({ usage: said.usage, generated: said.pieces, carried: part?.carried ?? 0 })
    avoid.push(from.deployment)
    if (
      said.failed !== undefined &&
      (!said.failed.retryable || LlmError.retryAfterOf(said.failed) !== undefined)
    ) {
      shut.set(from.deployment, said.failed)
    }
    if (error._tag === "StreamInterrupted") cause ??= error
    else if (part !== undefined && part.carried > 0) restartOnly = true
    yield* Scope.close(part?.scope ?? firstScope, Exit.void)
    const { head } = first.said
    const hopeless =
      error._tag === "StreamInterrupted" && said.failed !== undefined && !Router.movesOn(said.failed)
    const mayAsk =
      !hopeless && !beyondText && Continuation.read(body(call.model, call.deployment)) !== undefined
    if (head === undefined || !mayAsk || left === 0) return yield* giveUp
    left--
    // A second time where a continuation was refused: nothing was begun then.
    part = (yield* askAgain(head)) ?? (yield* askAgain(head))
  })

  /** What of an answer's own step is delivered. */
  const deliver = (found: Part, step: Step | undefined): Effect.Effect<Step | undefined, Inexact> =>
    Effect.suspend(() => {
      const chunks: Array<ChatChunk> = []
      for (const chunk of step?.chunks ?? []) {
        // It belongs to the call that it came from, not to what its reader takes for one answer.
        if (!("choices" in chunk)) continue
        const given = found.splice.accept(chunk)
        if (given === "inexact") return Effect.fail(new Inexact())
        chunks.push(...given)
      }
      if (step === undefined) {
        const given = found.splice.end()
        if (given === "inexact") return Effect.fail(new Inexact())
        chunks.push(...given)
      }
      let written = ""
      for (const chunk of chunks) {
        written += `data: ${JSON.stringify(chunk)}\n\n`
        events++
        for (const { delta } of chunk.choices) {
          if (typeof delta?.content !== "string" || delta.content === "") continue
          text += delta.content
          tokens++
        }
        if (chunk.usage !== null && chunk.usage !== undefined) usage = Usage.fromWire(chunk.usage) ?? usage
      }
      beyondText ||= found.opened.said.beyondText
      if (step === undefined && found.opened.said.done) written += done
      return Effect.succeed({ bytes: encoder.encode(written), chunks })
    })

  const read: Effect.Effect<Step | undefined, EventStream.Broken | Inexact> = Effect.suspend(() => {
    const found = part
    if (found === undefined) return first.next
    if (found.read === "all") return Effect.succeed(undefined)
    const step = found.read === "nothing" ? Effect.succeed(found.opened.first) : found.opened.next
    found.read = "some"
    return Effect.flatMap(step, (own) => {
      if (own === undefined) found.read = "all"
      return deliver(found, own)
    })
  })

  const next: Opened["next"] = Effect.suspend(() =>
    read.pipe(
      Effect.catchTag(["StreamInterrupted", "Inexact"], (error) => Effect.andThen(recover(error), next))
    )
  )

  /** Writes what comes after the break. */
  const forward = Effect.fnUntraced(function* (sink: ResponseCache.Sink) {
    // A quiet close may have left an event without its blank line.
    let bytes: Uint8Array = encoder.encode(first.said.failed === undefined ? "\n\n" : "")
    for (;;) {
      if (bytes.length > 0 && !sink.write(bytes)) {
        yield* Effect.callback<void>((resume) => sink.onDrain(() => resume(Effect.void)))
      }
      const step = yield* next
      if (step === undefined) return usage
      bytes = step.bytes
    }
  })

  const relay: Opened["relay"] = (sink) =>
    first
      .relay(sink)
      .pipe(Effect.catchTag("StreamInterrupted", (error) => Effect.andThen(recover(error), forward(sink))))

  const opened: Opened = { ...first, next, relay }
  return opened
})
