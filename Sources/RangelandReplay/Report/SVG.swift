// SPDX-License-Identifier: Apache-2.0
//
// The pieces that the pictures of a page are made of.

import Foundation
import Rangeland

/// A picture as text.
struct SVG {
  private(set) var body = ""
  let width: Double
  let height: Double
  let title: String

  init(width: Double, height: Double, title: String) {
    self.width = width
    self.height = height
    self.title = title
  }

  /// The whole element. It takes the width that it is given, and keeps its proportions.
  var text: String {
    "<svg viewBox=\"0 0 \(Self.number(width)) \(Self.number(height))\" role=\"img\" aria-label=\"\(title.escaped)\">"
      + "<title>\(title.escaped)</title>\(body)</svg>\n"
  }

  /// A coordinate, with as many digits as can be seen.
  static func number(_ value: Double) -> String {
    let text = String(format: "%.1f", value)
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
  }

  mutating func line(
    _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ style: String = "axis"
  ) {
    body +=
      "<line x1=\"\(Self.number(x1))\" y1=\"\(Self.number(y1))\" x2=\"\(Self.number(x2))\" y2=\"\(Self.number(y2))\" class=\"\(style)\"/>"
  }

  /// - Parameter anchor: start, middle or end.
  mutating func label(
    _ text: String, _ x: Double, _ y: Double, anchor: String = "start", _ style: String = "label"
  ) {
    body +=
      "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" text-anchor=\"\(anchor)\" class=\"\(style)\">\(text.escaped)</text>"
  }

  mutating func path(_ data: String, _ style: String) {
    if data.isEmpty { return }
    body += "<path d=\"\(data)\" class=\"\(style)\"/>"
  }

  mutating func rectangle(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ style: String,
    title: String? = nil
  ) {
    body +=
      "<rect x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" width=\"\(Self.number(width))\" height=\"\(Self.number(height))\" class=\"\(style)\">"
    if let title { body += "<title>\(title.escaped)</title>" }
    body += "</rect>"
  }

  /// A mark of its own shape for each policy, so that lines are told apart without colour.
  mutating func mark(_ policy: LockPolicy, _ x: Double, _ y: Double, title: String) {
    let (a, b) = (Self.number(x), Self.number(y))
    let shape =
      switch policy {
      case .semaphore: "M\(Self.number(x - 4)) \(Self.number(y - 4))h8v8h-8z"
      case .wholeRange:
        "M\(a) \(Self.number(y - 5))l5 5l-5 5l-5-5z"
      case .ranged:
        "M\(Self.number(x - 4.5)) \(b)a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z"
      case .perVMA: "M\(a) \(Self.number(y - 5))l5 9h-10z"
      }
    body +=
      "<path d=\"\(shape)\" class=\"mark \(policy.rawValue)\"><title>\(title.escaped)</title></path>"
  }
}

extension String {
  /// As text or an attribute of a page.
  var escaped: String {
    var result = ""
    for scalar in unicodeScalars {
      switch scalar {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "'": result += "&#39;"
      // What XML cannot hold at all.
      case _ where scalar.value < 0x20 && scalar != "\n" && scalar != "\t": result += "\u{fffd}"
      case "\u{fffe}", "\u{ffff}": result += "\u{fffd}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
