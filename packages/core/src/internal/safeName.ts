/**
 * Names that come from callers and servers, such as a model's, without keys: for rows, labels and errors.
 */
import * as OwnPatterns from "./ownPatterns.ts"
import * as RedactionSweep from "./redactionSweep.ts"

const most = 1000

/** The same few names come with every call. */
const known = new Map<string, string>()
let knownSince = OwnPatterns.version()

const without = (name: string): string =>
  OwnPatterns.remove(RedactionSweep.removeSecrets(name.slice(0, 4096)))

/** A name that comes again and again. */
export const of = (name: string): string => {
  if (knownSince !== OwnPatterns.version()) {
    known.clear()
    knownSince = OwnPatterns.version()
  }
  let safe = known.get(name)
  if (safe === undefined) {
    if (known.size >= most) known.clear()
    safe = without(name)
    known.set(name, safe)
  }
  return safe
}

/** Hexadecimal digits, as most names of requests are: no shape of a secret is made of them alone. */
const harmless = /^(?:req_)?[\da-f-]{0,64}$/u

/** A name that comes once, such as a request's. */
export const once = (name: string): string => (harmless.test(name) ? OwnPatterns.remove(name) : without(name))
