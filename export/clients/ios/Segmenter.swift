// The shortest honest way to run a compressed segmenter on iOS.
//
// Podfile: pod 'TensorFlowLiteSwift', '~> 2.17'
// Add model.tflite and manifest.json of a run to the app's bundle.

import CryptoKit
import Foundation
import TensorFlowLite

struct Manifest: Decodable {
    struct File: Decodable {
        let format: String
        let file: String
        let sha256: String
    }
    let classes: [String]
    let files: [File]
}

enum SegmenterError: Error {
    case missing(String)
    case notTheFileOfTheManifest(String)
}

/// Pixels in, probabilities out. Nothing is normalised: the file takes RGB, 0 to 255.
final class Segmenter {
    let classes: [String]
    let height: Int
    let width: Int
    private let interpreter: Interpreter

    init(bundle: Bundle = .main, threads: Int = 2) throws {
        guard let manifestURL = bundle.url(forResource: "manifest", withExtension: "json"),
            let modelURL = bundle.url(forResource: "model", withExtension: "tflite")
        else { throw SegmenterError.missing("manifest.json or model.tflite") }
        let manifest = try JSONDecoder().decode(Manifest.self, from: Data(contentsOf: manifestURL))
        let digest = SHA256.hash(data: try Data(contentsOf: modelURL)).map { String(format: "%02x", $0) }.joined()
        guard manifest.files.contains(where: { $0.format == "tflite" && $0.sha256 == digest }) else {
            throw SegmenterError.notTheFileOfTheManifest(modelURL.lastPathComponent)
        }
        var options = Interpreter.Options()
        options.threadCount = threads
        interpreter = try Interpreter(modelPath: modelURL.path, options: options)
        try interpreter.allocateTensors()
        let shape = try interpreter.input(at: 0).shape.dimensions  // 1, height, width, 3
        (height, width, classes) = (shape[1], shape[2], manifest.classes)
    }

    /// RGB bytes, height * width * 3 -> uint8 probabilities, height * width * classes; 255 is certain.
    func probabilities(rgb: Data) throws -> [UInt8] {
        try interpreter.copy(rgb, toInputAt: 0)
        try interpreter.invoke()
        return [UInt8](try interpreter.output(at: 0).data)
    }

    /// The likeliest class of each pixel.
    func segment(rgb: Data) throws -> [UInt8] {
        let scores = try probabilities(rgb: rgb)
        return (0..<(height * width)).map { pixel in
            let own = scores[(pixel * classes.count)..<((pixel + 1) * classes.count)]
            return UInt8(own.firstIndex(of: own.max()!)! - own.startIndex)
        }
    }
}
