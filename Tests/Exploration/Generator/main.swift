// SPDX-License-Identifier: Apache-2.0
//
// Copies source files and weaves planted mistakes into them: what the ExploredSources plugin runs.
//
// Guarantee: an edit whose original text does not occur exactly once in its file ends the build with a message
// that names the edit, so that a list that has fallen behind the sources cannot go unnoticed.
// Usage: ExploredSourcesGenerator FOLDER (LIST.mistakes | SOURCE.swift)...

import Foundation

let arguments = CommandLine.arguments.dropFirst()
guard let folder = arguments.first else { fail("usage: ExploredSourcesGenerator FOLDER FILE...") }
let inputs = arguments.dropFirst().map { URL(fileURLWithPath: $0) }

/// Ends the build. The form `error: ...` is what the build system shows.
func fail(_ message: String) -> Never {
  FileHandle.standardError.write(Data("error: \(message)\n".utf8))
  exit(1)
}

do {
  let lists = try inputs.filter { $0.pathExtension == "mistakes" }
    .sorted { $0.lastPathComponent < $1.lastPathComponent }
    .map { try EditList(file: $0) }
  var woven = Set<String>()
  for source in inputs where source.pathExtension == "swift" {
    let name = source.lastPathComponent
    var text = try String(contentsOf: source, encoding: .utf8)
    for edit in lists.flatMap(\.edits) where edit.file == name {
      text = try edit.woven(into: text)
      woven.insert(edit.file)
    }
    try write(text, to: name)
  }
  for edit in lists.flatMap(\.edits) where !woven.contains(edit.file) {
    throw EditFailure("\(edit.place): there is no source file \(edit.file)")
  }
  try write(catalogue(of: lists), to: "PlantedMistakes.swift")
} catch {
  fail("\(error)")
}

/// Writes one output, only if it changes, so that nothing is compiled again for nothing.
func write(_ text: String, to name: String) throws {
  let url = URL(fileURLWithPath: folder).appendingPathComponent(name)
  if let old = try? String(contentsOf: url, encoding: .utf8), old == text {
    // The build system compares times: the output has to be newer than the inputs.
    try FileManager.default.setAttributes([.modificationDate: Date()], ofItemAtPath: url.path)
    return
  }
  try text.write(to: url, atomically: true, encoding: .utf8)
}

/// The Swift file that lists the mistakes for the tests.
func catalogue(of lists: [EditList]) throws -> String {
  var text = """
    // Generated from the lists of mistakes.

    extension PlantedMistake {
      /// Every mistake of every list.
      public static let all: [PlantedMistake] = [

    """
  for mistake in lists.flatMap(\.mistakes) {
    guard mistake.caught.count >= 4 else {
      throw EditFailure("\(mistake.name): no line says what catches it")
    }
    text += """
          PlantedMistake(
            id: \(mistake.number), name: \(mistake.name.debugDescription),
            story: \(mistake.story.debugDescription),
            preemptions: \(mistake.caught[0]), model: \(mistake.caught[1].debugDescription),
            subject: \(mistake.caught[2].debugDescription),
            program: \(mistake.caught[3...].joined(separator: " ").debugDescription)),

      """
  }
  return text + "  ]\n}\n"
}
