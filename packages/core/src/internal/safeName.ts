/**
 * Names that come from callers and servers, such as a model's, without keys: for rows, labels and errors.
 */
import * as RedactionSweep from "./redactionSweep.ts"

const most = 1000

/** The same few names come with every call. */
const known = new Map<string, string>()

/** A name that comes again and again. */
export const of = (name: string): string => {
  let safe = known.get(name)
  if (safe === undefined) {
    if (known.size >= most) known.clear()
    safe = RedactionSweep.removeSecrets(name.slice(0, 4096))
    known.set(name, safe)
  }
  return safe
}

/** A name that comes once, such as a request's. */
export const once = (name: string): string =>
  name === "" ? "" : RedactionSweep.removeSecrets(name.slice(0, 4096))
