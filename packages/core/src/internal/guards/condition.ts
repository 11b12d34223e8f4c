/**
 * Guards for some calls only.
 */
import * as Effect from "effect/Effect"
import type * as Call from "../../Call.ts"
import * as InvalidSetting from "../../InvalidSetting.ts"
import * as Wildcard from "../wildcard.ts"
import type { Making } from "./guard.ts"
import { atLeastOne, names } from "./settings.ts"

/**
 * Which calls are meant: those to which every list applies that is there. A list applies where one of its names, or
 * of its patterns in which `*` stands for any characters, is the call's; a call that has no such name is not meant.
 */
export interface Condition {
  /** As the request names them: `gpt-6*`. */
  readonly models?: ReadonlyArray<string> | undefined
  /** Names of the callers' keys, never the keys themselves. */
  readonly keys?: ReadonlyArray<string> | undefined
  readonly tenants?: ReadonlyArray<string> | undefined
  /** Such as `chat.*`. */
  readonly operations?: ReadonlyArray<string> | undefined
}

const rules = { models: names, keys: names, tenants: names, operations: names }

const applies = ({ keys, models, operations, tenants }: Condition): ((call: Call.Call) => boolean) => {
  const test = (patterns: ReadonlyArray<string> | undefined) => {
    if (patterns === undefined) return () => true
    const matches = Wildcard.any(patterns)
    return (name: string | undefined) => name !== undefined && matches(name)
  }
  const [isKey, isModel, isOperation, isTenant] = [test(keys), test(models), test(operations), test(tenants)]
  return (call) =>
    isOperation(call.operation) && isKey(call.keyId) && isTenant(call.tenant) && isModel(call.model)
}

/**
 * Guards that look at some calls only, and at the others not at all.
 *
 * @param condition names, or a function of the call; it is asked again for each guard, since an earlier one may have
 *   changed the model. One that throws ends the call as a defect
 * @returns the same guards, to be listed among others. They fail with `InvalidSetting` where the condition is none
 */
export const when = <R = never>(
  condition: Condition | ((call: Call.Call) => boolean),
  guards: ReadonlyArray<Making<R>>
): ReadonlyArray<Making<R>> =>
  guards.map((making) =>
    Effect.gen(function* () {
      if (typeof condition !== "function") {
        yield* InvalidSetting.check("Guards.when", condition, rules)
        yield* atLeastOne("Guards.when", condition, Object.keys(rules))
      }
      const isMeant = typeof condition === "function" ? condition : applies(condition)
      const guard = yield* making
      const inner = guard.applies
      return {
        ...guard,
        applies: inner === undefined ? isMeant : (call: Call.Call) => isMeant(call) && inner(call)
      }
    })
  )
