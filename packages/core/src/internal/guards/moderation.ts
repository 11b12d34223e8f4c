/**
 * Guards that ask a check about texts.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as InvalidSetting from "../../InvalidSetting.ts"
import * as RequestTexts from "../requestTexts.ts"
import { type Guard, Refusal } from "./guard.ts"

/** What a check found. */
export interface Verdict {
  readonly flagged: boolean
  /** Names of what was found, for the caller to read. */
  readonly categories: ReadonlyArray<string>
}

/** How texts are checked. */
export interface ModerationOptions<E, R> {
  /** Told all texts of a request at once. */
  readonly check: (texts: ReadonlyArray<string>) => Effect.Effect<Verdict, E, R>
  /** Where the check itself fails: `refuse` unless told. */
  readonly onFailure?: "refuse" | "allow" | undefined
  /** What is checked; `requests` unless told. */
  readonly checks?: "requests" | "replies" | "both" | undefined
}

/** The check's own calls are not checked: they would never end. */
const Checking = Context.Reference<boolean>("@llm/core/Guards/Checking", { defaultValue: () => false })

/** To ask what is thought of a text is not to say it. */
const isAsking = (operation: string): boolean => operation.startsWith("moderations.")

/**
 * Refuses texts that a check flags. Calls of moderation operations, and those that the check itself makes, are not
 * checked. Fails with `InvalidSetting`.
 */
export const moderation = <E, R = never>(
  options: ModerationOptions<E, R>
): Effect.Effect<Guard, InvalidSetting.InvalidSetting, R> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(
      "Guards.moderation",
      { ...options, check: options.check ?? "missing" },
      {
        check: InvalidSetting.callable,
        onFailure: InvalidSetting.oneOf("refuse", "allow"),
        checks: InvalidSetting.oneOf("requests", "replies", "both")
      }
    )
    const context = yield* Effect.context<R>()
    const checks = options.checks ?? "requests"

    const look = Effect.fnUntraced(function* (texts: ReadonlyArray<string>) {
      if (texts.length === 0 || (yield* Checking)) return
      const verdict = yield* Effect.suspend(() => options.check(texts)).pipe(
        Effect.provideContext(context),
        Effect.provideService(Checking, true),
        Effect.catchCause((cause) => {
          if (Cause.hasInterrupts(cause)) return Effect.interrupt
          return options.onFailure === "allow"
            ? Effect.as(
                // What failed may quote the texts.
                Effect.logWarning("Guards.moderation: the check failed, and its texts were let through"),
                undefined
              )
            : Effect.fail(new Refusal({ detail: "the moderation check failed" }))
        })
      )
      if (verdict?.flagged !== true) return
      const categories = verdict.categories.join(", ")
      return yield* new Refusal({ detail: categories === "" ? "flagged" : `flagged: ${categories}` })
    })

    return {
      name: "moderation",
      before:
        checks === "replies"
          ? undefined
          : (request) =>
              isAsking(request.call.operation)
                ? Effect.succeed(request)
                : Effect.as(look(RequestTexts.of(request.body)), request),
      after: checks === "requests" ? undefined : ({ text }) => look(text === "" ? [] : [text])
    }
  })
