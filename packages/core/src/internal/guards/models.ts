/**
 * Guards over which model is asked.
 */
import * as Effect from "effect/Effect"
import * as InvalidSetting from "../../InvalidSetting.ts"
import * as Wildcard from "../wildcard.ts"
import { type Guard, Refusal } from "./guard.ts"
import { names } from "./settings.ts"

/** Which models may be asked. */
export interface ModelsOptions {
  /** Names, or patterns in which `*` stands for any characters: `gpt-6*`. */
  readonly allow: ReadonlyArray<string>
  /**
   * Whether a request that names no model may pass; not unless told. Operations that ask no model (of files, vector
   * stores, batches, conversations) need not name one.
   */
  readonly unnamed?: boolean | undefined
}

/** What is not on this list may ask a model, and has to say which. */
const asksNone = /^(?:(?:files|uploads|vectorStores|batches|conversations|models)\.|chat\.modify$)/u

/** Refuses other models than those that are allowed, with status 403. Fails with `InvalidSetting`. */
export const models = (options: ModelsOptions): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(
      "Guards.models",
      { ...options, allow: options.allow ?? "missing" },
      { allow: names, unnamed: InvalidSetting.oneOf(true, false) }
    )
    const isAllowed = Wildcard.any(options.allow)
    const refusal = (detail: string) => new Refusal({ detail, param: "model", httpStatus: 403 })
    return {
      name: "models",
      before: Effect.fnUntraced(function* (request) {
        const { body, call } = request
        const asked = [body["model"], call.model].filter((model) => model !== undefined && model !== null)
        if (asked.length === 0 && options.unnamed !== true && !asksNone.test(call.operation)) {
          return yield* refusal("the request names no model")
        }
        for (const model of asked) {
          if (typeof model !== "string") return yield* refusal("the model is no text")
          if (!isAllowed(model)) return yield* refusal(`the model ${JSON.stringify(model)} is not allowed`)
        }
        return request
      })
    }
  })
