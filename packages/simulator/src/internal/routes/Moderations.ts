/** `POST /v1/moderations`: a text is flagged for the words in it. */
import { Predicate, Result, Schema } from "effect"
import * as Answer from "../Answer.ts"
import * as Hash from "../Hash.ts"
import * as Parameters from "../Parameters.ts"
import type { Request, Route, Settings } from "../Route.ts"
import * as Strict from "../Strict.ts"

/** What makes a text a case of a category: beginnings of words. */
const categories: Readonly<Record<string, RegExp>> = {
  harassment: /\b(idiot|stupid|moron|loser|shut up)/i,
  "harassment/threatening": /\b(i('| wi)ll (hurt|kill|find) (you|him|her|them)|watch your back)/i,
  hate: /\b(hate (all|those|these)|inferior race|subhuman)/i,
  "hate/threatening": /\b(exterminate|wipe (them|those) out|gas (them|those))/i,
  illicit: /\b(shoplift|counterfeit|launder money|cook meth|pick a lock|hotwire)/i,
  "illicit/violent": /\b(build|make|buy) (a |an )?(bomb|explosive|ghost gun|grenade)/i,
  "self-harm": /\b(self-harm|suicid|cut myself)/i,
  "self-harm/intent": /\b(kill myself|end my life|hurt myself)/i,
  "self-harm/instructions": /\bhow (to|do i) (kill myself|end my life|self-harm)/i,
  sexual: /\b(porn|erotic|nude)/i,
  "sexual/minors": /\b(child porn|sexual\w* (child|minor))/i,
  violence: /\b(kill|murder|stab|shoot|attack|bomb)/i,
  "violence/graphic": /\b(gore|dismember|behead|blood(y|ied) corpse)/i
}

/** Only these are looked for in pictures. */
const seen = new Set([
  "self-harm",
  "self-harm/intent",
  "self-harm/instructions",
  "sexual",
  "violence",
  "violence/graphic"
])

const Part = Schema.Union([
  Schema.Struct({ type: Schema.Literals(["text"]), text: Schema.String }),
  Schema.Struct({ type: Schema.Literals(["image_url"]), image_url: Schema.Struct({ url: Schema.String }) })
])
const ModerationRequest = Schema.Struct({
  input: Schema.Union([Schema.String, Schema.Array(Schema.String), Schema.Array(Part)]),
  model: Parameters.optional(Schema.String)
})
const decode = Parameters.decoder(ModerationRequest)

interface Subject {
  readonly text: string
  readonly picture: boolean
}

const subjectsOf = (input: (typeof ModerationRequest.Type)["input"]): ReadonlyArray<Subject> => {
  if (Predicate.isString(input)) return [{ text: input, picture: false }]
  const texts = input.filter(Predicate.isString)
  if (texts.length > 0) return texts.map((text) => ({ text, picture: false }))
  // Parts are looked at together.
  const parts = input.flatMap((part) => (Predicate.isString(part) ? [] : [part]))
  return [
    {
      text: parts.map((part) => (part.type === "text" ? part.text : "")).join("\n"),
      picture: parts.some((part) => part.type === "image_url")
    }
  ]
}

const judged = ({ picture, text }: Subject, { seed }: Settings) => {
  const entries = Object.entries(categories).map(([name, pattern]) => {
    const flagged = pattern.test(text)
    const noise = Hash.unit(Hash.text(name + text, seed), 1)
    return { name, flagged, score: flagged ? 0.8 + 0.19 * noise : 0.01 * noise }
  })
  return {
    flagged: entries.some(({ flagged }) => flagged),
    categories: Object.fromEntries(entries.map(({ flagged, name }) => [name, flagged])),
    category_scores: Object.fromEntries(entries.map(({ name, score }) => [name, score])),
    category_applied_input_types: Object.fromEntries(
      entries.map(({ name }) => [name, picture && seen.has(name) ? ["text", "image"] : ["text"]])
    )
  }
}

const create: Route = {
  method: "POST",
  path: "/moderations",
  pure: true,
  answer: (request: Request, settings) => {
    const { body } = request
    const failure =
      settings.strict && Predicate.isObject(body)
        ? Strict.parameters(body, { input: { type: "any" }, model: { type: "string" } })
        : undefined
    if (failure !== undefined) return Answer.error(failure)
    const decoded = decode(body)
    if (Result.isFailure(decoded)) return Answer.error(decoded.failure)
    const { input } = decoded.success
    if (Array.isArray(input) && input.length === 0) {
      return Answer.error(Parameters.invalid("input", "expected at least one input"))
    }
    const subjects = subjectsOf(input)
    const hash = Hash.text(JSON.stringify(subjects), settings.seed)
    return Answer.json(
      JSON.stringify({
        id: `modr-${Hash.hex(hash, 32)}`,
        model: request.model === "" ? "omni-moderation-latest" : request.model,
        results: request.shape.emptyChoices ? [] : subjects.map((subject) => judged(subject, settings))
      })
    )
  }
}

export const routes: ReadonlyArray<Route> = [create]
