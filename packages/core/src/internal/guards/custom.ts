/**
 * Guards out of functions.
 */
import * as Effect from "effect/Effect"
import * as InvalidSetting from "../../InvalidSetting.ts"
import type { Guard, Refusal, Reply, Request } from "./guard.ts"

/** A guard of your own. It refuses by failing with `Refusal`; a defect ends the call as a defect. */
export interface CustomOptions<R> {
  readonly name: string
  readonly before?: ((request: Request) => Effect.Effect<Request, Refusal, R>) | undefined
  readonly after?: ((reply: Reply) => Effect.Effect<void, Refusal, R>) | undefined
}

/** A guard out of functions. Fails with `InvalidSetting`. */
export const custom = <R = never>(
  options: CustomOptions<R>
): Effect.Effect<Guard, InvalidSetting.InvalidSetting, R> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(
      "Guards.custom",
      { ...options, name: options.name ?? "missing" },
      {
        name: { allowed: "a name", accepts: (value) => typeof value === "string" && value !== "" },
        before: InvalidSetting.callable,
        after: InvalidSetting.callable
      }
    )
    const context = yield* Effect.context<R>()
    const { after: seesReply, before: seesRequest, name } = options
    return {
      name,
      before:
        seesRequest &&
        ((request) =>
          Effect.provideContext(
            Effect.suspend(() => seesRequest(request)),
            context
          )),
      after:
        seesReply &&
        ((reply) =>
          Effect.provideContext(
            Effect.suspend(() => seesReply(reply)),
            context
          ))
    }
  })
