#!/usr/bin/env node
/**
 * The launcher: checks the runtime and switches the compile cache on before anything large is loaded.
 */
import * as Module from "node:module"

const oldest = [22, 19] as const
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)

if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
  process.stderr.write(
    `error: oa needs Node ${oldest.join(".")} or newer, this is ${process.versions.node} (${process.execPath})\n`
  )
  process.exitCode = 1
} else {
  Module.enableCompileCache?.()
  const { main } = await import("./main.ts")
  main(process.argv.slice(2))
}
