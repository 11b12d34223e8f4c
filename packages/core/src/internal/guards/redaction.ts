/**
 * Guards that take secrets and personal data out of texts.
 */
import * as Effect from "effect/Effect"
import * as InvalidSetting from "../../InvalidSetting.ts"
import * as Redaction from "../../Redaction.ts"
import * as RequestTexts from "../requestTexts.ts"
import type { Guard } from "./guard.ts"

/**
 * Takes keys, tokens, e-mail addresses, card numbers and custom patterns out of the texts of a request, before
 * anybody else sees them. Replies are not changed. Fails with `InvalidSetting`.
 */
export const redaction = (
  options: Redaction.Options = {}
): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check("Guards.redaction", options, {
      patterns: {
        allowed: "a list of regular expressions",
        accepts: (value) => Array.isArray(value) && value.every((pattern) => pattern instanceof RegExp)
      }
    })
    const redactText = Redaction.make(options)
    return {
      name: "redaction",
      before: ({ body, call }) => Effect.sync(() => ({ call, body: RequestTexts.map(body, redactText) }))
    }
  })
