// SPDX-License-Identifier: Apache-2.0
//
// JSON as every `--json` prints it: keys in the order given, two spaces a level.

/// A JSON value.
enum JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
  case null
  case bool(Bool)
  case integer(Int64)
  case unsigned(UInt64)
  /// Values that JSON has no word for (not finite) are written as null.
  case number(Double)
  case string(String)
  case array([JSON])
  case object(KeyValuePairs<String, JSON>)
  /// An object from names to numbers, in this order.
  case counts([(kind: String, count: Int)])

  init(stringLiteral value: String) { self = .string(value) }
  init(integerLiteral value: Int64) { self = .integer(value) }

  static func count(_ value: Int) -> JSON { .integer(Int64(value)) }

  /// A document that begins with the version of what `--json` prints.
  static func document(_ members: KeyValuePairs<String, JSON>) -> String {
    var text = ""
    write(
      [("schemaVersion", JSON.integer(1))] + members.map { ($0.key, $0.value) }, "", &text)
    return text + "\n"
  }

  private func write(_ indent: String, _ text: inout String) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += String(value)
    case .unsigned(let value): text += String(value)
    case .number(let value): text += value.isFinite ? "\(value)" : "null"
    case .string(let value): Self.write(value, &text)
    case .array(let values):
      if values.isEmpty {
        text += "[]"
        return
      }
      for (index, value) in values.enumerated() {
        text += (index == 0 ? "[\n" : ",\n") + indent + "  "
        value.write(indent + "  ", &text)
      }
      text += "\n" + indent + "]"
    case .object(let members): Self.write(members.map { ($0.key, $0.value) }, indent, &text)
    case .counts(let counts):
      Self.write(counts.map { ($0.kind, .count($0.count)) }, indent, &text)
    }
  }

  private static func write(
    _ members: [(String, JSON)], _ indent: String, _ text: inout String
  ) {
    if members.isEmpty {
      text += "{}"
      return
    }
    for (index, (key, value)) in members.enumerated() {
      text += (index == 0 ? "{\n" : ",\n") + indent + "  "
      write(key, &text)
      text += ": "
      value.write(indent + "  ", &text)
    }
    text += "\n" + indent + "}"
  }

  private static func write(_ string: String, _ text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\t": text += "\\t"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}
