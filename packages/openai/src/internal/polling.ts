/**
 * Looks at something again and again until it is done.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as LlmError from "@llm/core/LlmError"
import type { Answered, CallOptions } from "./operation.ts"

/** How something is waited for. */
export interface WaitOptions<A> extends CallOptions {
  /** From one look to the next; unless told what the server asks for (`openai-poll-after-ms`). */
  readonly interval?: Duration.Input | undefined
  /** Told of every look, the last one included. */
  readonly onProgress?: ((now: A) => Effect.Effect<void>) | undefined
}

/** What a server asks for is kept between these, in milliseconds. */
const shortest = 1
const longest = 60_000

const askedFor = ({ header }: Answered<unknown>): number | undefined => {
  const text = header("openai-poll-after-ms") ?? ""
  return /^\d+$/u.test(text) ? Math.min(longest, Math.max(shortest, Number(text))) : undefined
}

/**
 * Repeats a look until it finds what it looks for.
 *
 * Fails as the look does, and with `DeadlineExceeded` as soon as no look fits in before the deadline.
 *
 * @param context where the call goes, for that error
 * @param usual milliseconds between two looks where neither the caller nor the server says
 */
export const until = <A>(
  look: Effect.Effect<Answered<A>, LlmError.CallError>,
  done: (now: A) => boolean,
  context: LlmError.Context,
  { deadline, interval, onProgress }: WaitOptions<A>,
  usual = 5000
): Effect.Effect<A, LlmError.CallError> => {
  const fixed = interval === undefined ? undefined : Duration.toMillis(Duration.fromInputUnsafe(interval))
  const schedule = Schedule.forever.pipe(
    Schedule.setInputType<Answered<A>>(),
    Schedule.modifyDelay(({ input }) => {
      const wait = fixed ?? askedFor(input) ?? usual
      if (deadline === undefined) return Effect.succeed(Duration.millis(wait))
      return Effect.flatMap(Clock.currentTimeMillis, (now) =>
        now + wait >= deadline
          ? Effect.fail(new LlmError.DeadlineExceeded({ ...context, deadline }))
          : Effect.succeed(Duration.millis(wait))
      )
    })
  )
  return look.pipe(
    Effect.tap(({ value }) => onProgress?.(value) ?? Effect.void),
    Effect.repeat({ schedule, until: ({ value }) => done(value) }),
    Effect.map(({ value }) => value)
  )
}
