/**
 * Takes out of a text, in one walk over it, what looks like a secret or names a person.
 *
 * Whatever the text, the time is linear in its length: only a telling character calls for a closer look, and no kind
 * of secret is looked for twice in the same place.
 */
import * as Characters from "./characters.ts"
import * as NamedSecrets from "./namedSecrets.ts"
import * as PersonalData from "./personalData.ts"
import * as SecretShapes from "./secretShapes.ts"
import { Sweep } from "./sweep.ts"
import * as TellingCharacters from "./tellingCharacters.ts"

/** So much is looked through at a time: a function that is called again and again is compiled better than a long loop. */
const stretch = 4096

/** Looks around the telling characters from one place to at least another; returns where to go on. */
const lookThrough = (sweep: Sweep, start: number, end: number, wanted: number): number => {
  const { codes } = sweep
  let at = TellingCharacters.next(codes, start, wanted)
  for (; at < end; at = TellingCharacters.next(codes, at + 1, wanted)) {
    const before = codes[at - 1] ?? 0
    const next = codes[at + 1] ?? 0
    switch (codes[at]) {
      case 45: // -
      case 95: // _
        SecretShapes.coverPrefixed(sweep, at)
        if ((before | 32) === 121) SecretShapes.coverKey(sweep, at)
        break
      case 58: // :
        if (next === 47) SecretShapes.coverUserInformation(sweep, at)
        NamedSecrets.coverNamed(sweep, at)
        break
      case 61: // =
        NamedSecrets.coverNamed(sweep, at)
        break
      case 44: // ,
        NamedSecrets.coverPaired(sweep, at)
        break
      case 46: // .
        if (before === 57 || before === 71) SecretShapes.coverDotted(sweep, at)
        break
      case 66: // B
      case 98: // b
        if (before === 45) SecretShapes.coverPrivateKey(sweep, at)
        if ((next | 32) === 101) SecretShapes.coverBearer(sweep, at)
        else if (next === 97) SecretShapes.coverBasic(sweep, at)
        break
      case 65: // A
        if (next === 75 || next === 83 || next === 73) SecretShapes.coverCloudKey(sweep, at)
        break
      case 74: // J
        if (before === 121) SecretShapes.coverWebToken(sweep, at)
        break
      case 64: // @
        PersonalData.coverAddress(sweep, at)
        break
      case 37: // %
        PersonalData.coverEncodedAddress(sweep, at)
        break
    }
  }
  return at
}

const sweep = (text: string, wanted: number): string => {
  const found = new Sweep(text)
  const { end } = found
  if (wanted === TellingCharacters.all) PersonalData.findCardNumbers(found)
  for (let at = Characters.margin; at < end;) {
    at = lookThrough(found, at, Math.min(at + stretch, end), wanted)
  }
  return found.finish()
}

/** Takes keys and credentials out of a text. */
export const removeSecrets = (text: string): string => sweep(text, TellingCharacters.secrets)

/** Takes keys, credentials, e-mail addresses and card numbers out of a text. */
export const removeAll = (text: string): string => sweep(text, TellingCharacters.all)
