/**
 * What is wrong with something that was decoded, in one line and without its values: one may be a secret in the wrong
 * place.
 */
import type * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** The first problem, with its place, such as `budget.window`; empty for the whole. */
export const of = (error: Schema.SchemaError): { readonly field: string; readonly detail: string } => {
  const [first] = format(error.issue).issues
  const field = (first?.path ?? [])
    .map((part) => String(typeof part === "object" ? part.key : part))
    .join(".")
  const words = (first?.message ?? "it cannot be read")
    .replaceAll(/\s+/gu, " ")
    .replace(/, (?:actual|got) .*$/u, "")
  return { field, detail: `${field === "" ? "" : `${field}: `}${words}` }
}
