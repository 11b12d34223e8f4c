/**
 * A body that can be read only once: a call that has begun to send it cannot be made again.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"

/** Watches over one call's body. */
export class Once {
  private begun = false
  private failed: LlmError.ExchangeError | undefined

  /** The body is being read from now on. */
  readonly begin = (): void => {
    this.begun = true
  }

  /** Makes an exchange of the call, unless an earlier one has begun to read: then its failure stands. */
  exchange<A, R>(
    attempt: Resilience.Attempt,
    make: Effect.Effect<A, LlmError.ExchangeError, R>
  ): Effect.Effect<A, LlmError.ExchangeError, R> {
    if (this.failed !== undefined) return Effect.fail(this.failed)
    return Effect.onError(make, (cause) =>
      Effect.sync(() => {
        if (!this.begun) return
        // A clock that ran out has interrupted the exchange, and is what the call fails with.
        const { reason }: { readonly reason: unknown } = attempt.signal
        const clock = reason instanceof LlmError.TimedOut ? reason : undefined
        const error = Option.getOrUndefined(Cause.findErrorOption(cause)) ?? clock
        if (error === undefined) return
        this.failed = error
        // The policies ask the error, and this call cannot be made again.
        Object.defineProperty(error, "retryable", { value: false })
      })
    )
  }
}
