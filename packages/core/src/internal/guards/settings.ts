/**
 * What the settings of guards may be.
 */
import * as Effect from "effect/Effect"
import * as InvalidSetting from "../../InvalidSetting.ts"

/** A number of things. */
export const anyCount = InvalidSetting.whole(1, Number.MAX_SAFE_INTEGER)

/** Names, or patterns of them. */
export const names: InvalidSetting.Rule = {
  allowed: "a list of names, at least one, none of them empty",
  accepts: (value) =>
    Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === "string" && name !== "")
}

/** What was meant as a limit must not be none by a slip of the pen. */
export const atLeastOne = (
  owner: string,
  options: object,
  settings: ReadonlyArray<string>
): Effect.Effect<void, InvalidSetting.InvalidSetting> =>
  Object.values<unknown>({ ...options }).some((value) => value !== undefined)
    ? Effect.void
    : Effect.fail(
        new InvalidSetting.InvalidSetting({
          owner,
          setting: "options",
          value: "empty",
          allowed: `an object with ${settings.join(", ")}`
        })
      )
