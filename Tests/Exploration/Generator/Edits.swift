// SPDX-License-Identifier: Apache-2.0
//
// Lists of mistakes: what they say, and how one is woven into a source file.
//
// A list is made of blocks, each headed by a line in column 0:
//
//     mistake NAME                       begins a mistake; lines of its story follow, indented
//     caught PREEMPTIONS MODEL SUBJECT PROGRAM     an exploration that finds it
//     bound FILE                         an edit that is always on: smaller limits, so that exploration ends
//     statement FILE | expression FILE   one edit of the mistake; several are allowed
//     text FILE                          an edit whose mutated text asks for the switch itself: PLANTED
//     original                           the text as it stands in FILE, once; each line is indented by 4 more
//     mutated                            the text in its place while the mistake is on
//
// Lines that begin with `#` are comments.

import Foundation

struct EditFailure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// What is planted under one name.
struct Mistake {
  var number: Int
  var name: String
  var story: String
  /// The words after `caught`.
  var caught: [String] = []
}

/// One replacement in one file.
struct Edit {
  enum Form: String {
    case statement, expression, text, bound
  }

  var form: Form
  var file: String
  var number: Int
  /// List, line and name: for messages.
  var place: String
  var original = ""
  var mutated = ""

  /// The file's text with a switch in the place of the original.
  func woven(into text: String) throws -> String {
    let parts = text.components(separatedBy: original)
    guard !original.isEmpty, parts.count == 2 else {
      throw EditFailure(
        "\(place): the original has to occur exactly once in \(file), it occurs \(parts.count - 1) times:\n\(original)"
      )
    }
    return parts[0] + replacement + parts[1]
  }

  private var replacement: String {
    switch form {
    case .bound: mutated
    case .text: mutated.replacingOccurrences(of: "PLANTED", with: "isPlanted(\(number))")
    case .expression: "(isPlanted(\(number)) ? (\(mutated)) : (\(original)))"
    case .statement: "if isPlanted(\(number)) {\n\(mutated)\n} else {\n\(original)\n}"
    }
  }
}

/// One file of mistakes.
struct EditList {
  private(set) var mistakes: [Mistake] = []
  private(set) var edits: [Edit] = []

  init(file: URL) throws {
    enum Part { case none, story, original, mutated }
    var part = Part.none
    let name = file.lastPathComponent
    let text = try String(contentsOf: file, encoding: .utf8)
    for (index, line) in text.components(separatedBy: "\n").enumerated() {
      let place = "\(name):\(index + 1)"
      if line.hasPrefix("#") { continue }
      if line.hasPrefix(" ") || line.isEmpty {
        let content = line.hasPrefix("    ") ? String(line.dropFirst(4)) : ""
        switch part {
        case .none: continue
        case .story: mistakes[mistakes.count - 1].append(line)
        case .original: edits[edits.count - 1].original += content + "\n"
        case .mutated: edits[edits.count - 1].mutated += content + "\n"
        }
        continue
      }
      let words = line.split(separator: " ").map(String.init)
      switch (words[0], words.count) {
      case ("caught", 5...) where !mistakes.isEmpty:
        mistakes[mistakes.count - 1].caught = Array(words.dropFirst())
        part = .none
      case ("mistake", 2):
        // Stable between builds, distinct between lists.
        mistakes.append(Mistake(number: Self.number(words[1]), name: words[1], story: ""))
        part = .story
      case ("original", 1) where !edits.isEmpty: part = .original
      case ("mutated", 1) where !edits.isEmpty: part = .mutated
      case ("bound", 2):
        edits.append(Edit(form: .bound, file: words[1], number: 0, place: place))
        part = .none
      case (let form, 2):
        guard let form = Edit.Form(rawValue: form), let mistake = mistakes.last else {
          throw EditFailure("\(place): not understood: \(line)")
        }
        edits.append(
          Edit(
            form: form, file: words[1], number: mistake.number, place: "\(place) (\(mistake.name))")
        )
        part = .none
      default: throw EditFailure("\(place): not understood: \(line)")
      }
    }
    // The line end after the last line of a fragment belongs to the list, not to the fragment.
    for index in edits.indices {
      edits[index].original.trimLineEnds()
      edits[index].mutated.trimLineEnds()
    }
  }

  /// A number that a name always has (FNV-1a, 31 bits).
  private static func number(_ name: String) -> Int {
    var hash: UInt32 = 2_166_136_261
    for byte in name.utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
    return Int(hash >> 1) + 1
  }
}

extension Mistake {
  fileprivate mutating func append(_ line: String) {
    let words = line.trimmingCharacters(in: .whitespaces)
    if words.isEmpty { return }
    story += story.isEmpty ? words : " " + words
  }
}

extension String {
  fileprivate mutating func trimLineEnds() {
    while hasSuffix("\n") { removeLast() }
  }
}
