//! Small words of the languages that share the Latin script, and what tells them from each other.
//!
//! Function words and the vocabulary of reasoning, written for this table. A word
//! that several languages have stands in each of their rows: it then speaks for
//! none of them. Italian, Portuguese and Dutch are here so that they are not taken
//! for a neighbour; they can be targets too.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

/// Languages of the Latin script, by bit.
pub(super) const LATIN: [&str; 7] = ["en", "fr", "de", "es", "it", "pt", "nl"];

/// One row a language, in [`LATIN`]'s order.
const WORDS: [&str; 7] = [EN, FR, DE, ES, IT, PT, NL];

/// Units and function names that every language writes alike.
const NEUTRAL: &str = "
sin cos tan cot sec csc log ln lim max min mod gcd lcm det dim exp cm mm km kg mg ml kw mph ft lb lbs oz hz pi phi theta
alpha beta gamma delta lambda sqrt frac boxed qed ok vs etc usd eur text
";

/// What the lists say of a word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// Bit `i` is language `i` of [`LATIN`].
    pub mask: u8,
    /// No language's own.
    pub neutral: bool,
}

/// The entry of a word in lower case; empty for one that no list has.
pub(super) fn known(word: &str) -> Entry {
    static KNOWN: LazyLock<HashMap<&str, Entry, BuildHasherDefault<WordHasher>>> = LazyLock::new(|| {
        let mut known: HashMap<&str, Entry, _> = HashMap::default();
        for (bit, words) in WORDS.iter().enumerate() {
            for word in words.split_whitespace() {
                known.entry(word).or_default().mask |= 1 << bit;
            }
        }
        for word in NEUTRAL.split_whitespace() {
            known.entry(word).or_default().neutral = true;
        }
        known
    });
    KNOWN.get(word).copied().unwrap_or_default()
}

/// Multiply and rotate, eight bytes at a time: the keys are ours, so nobody can choose them to collide.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

const EN: &str = "
a about above across actually add adding after again against all almost alone along already also although always am
among amount an and another answer any anything apply are area around arrive as ask at away back base be became because
become been before began being below beside best better between both bring but buy by calculate call called came can
cannot case change check chat choose claim clear clearly combine come comes comment compute condition consider constant
contain correct cost could count cover day days deep define depend derive die different digit distance divide divided do
does doing done down draw each earn easy either eleven else enough equal equals equation even evenly ever every everything
exactly example except express expression fact factor far fast few fewer find first five follow following follows for form
formula found four from full function further gave general get gets getting give given gives giving go goes going good got
great greater group grow had half happen hard has hat have having he height help hence her here high him his hold how
however hundred i idea if imagine in including increase indeed instead integer interesting into is isn't it it's its itself
just keep kept kind know known large largest last later least left length less let let's letter like likely line list
little live long look made main make makes making man many matter may maybe me mean means might mind more most much
multiple multiply must my name near nearly need needed needs negative neither never new next nine no none nor not note
nothing notice now number numbers observe obtain odd of off often oh ok okay old on once one only or order other others our
out over own page pain pair part per perhaps person place plus point points possible prime problem product prove put
question quickly quite rather ratio reach read real really reason recall remain remainder remaining remains remember
require required result right room root round rule run said sale same say see seem seems sees sell sense set seven several
she should show shows side sides similar simple simplify since single six size small smallest so solution solve some
someone something soon square start started state step steps still stop study substitute subtract such suppose sure table
take taken takes tell ten test than that that's the their them then there therefore these they thing things think third
this those though thousand three through thus time times to today together told too total toward travel triangle true try
turn twelve twenty twice two under unit units unless until up upon us use used using usually valid value values variable
verify very wait want wants war was way we we'll we're week weeks well went were what when where whether which while
white who whole whose why will with within without won't word words work works would write wrong year years yes yet you
your zero start story family father mother brother sister son daughter child children people friend friends school home
house car book books eat eats apple apples money dollar dollars cents hour hours minute minutes water food hand eye head
bought costs sold spends spent paid pays pound pounds kilo kilos pack packs piece pieces bag bags each person people
world life country city night morning evening love speak language english paper open close play game
";

const FR: &str = "
à
a ai ainsi ajoute ajouter alors an année ans après aprés assez au aucun aujourd'hui aura aurait aussi autant autre autres
aux avait avant avec avoir avons ayant base beaucoup besoin bien bon bonne c'est ça calcul calcule calculer calculons
car carré cas ce ceci cela celle celles celui cent cependant certain ces cet cette ceux chaque chat chaque chiffre chose
ci cinq combien comme comment commence compte considérons côté côtés dans d'abord d'où de déduit déjà demande depuis
dernier derrière des deux devant deviner devient dire dit dix dixième doit doivent donc donne donner donné donnée données
dont d'un d'une du deuxième égal égale égaux élève elle elles en encore enfin ensemble ensuite entre équation équivaut
est et étant était été étape être eu eux évident exactement exemple facteur faire fait faut faux fois font fonction forme
grand grande hauteur heure heures hier hors huit ici il ils inconnue inférieur j'ai je jamais jour jours jusqu'à l'aire
l'équation l'on l'un la laquelle le lequel les leur leurs longtemps lorsque lui ma main maintenant mais mal mardi me même
mêmes mes mettre mieux mille moi moins mois moitié mon montrer multiplie multiplier n'a n'est ne neuf ni nombre nombres
non nos notre nous nouveau nul obtenir obtenons obtient on ont onze or ou où oui pain par parce pareil parfois parmi part
partie pas pendant pense pensons personne petit petite peu peut peuvent peux plus plusieurs point positif possible pour
pourquoi pourrait pouvons premier première prend prendre prenons près presque problème prochain produit puis puisque
puissance qu'elle qu'il qu'on qu'un quand quatre que quel quelle quelles quelque quelques quels question qui quoi racine
réel réponse reste rester résoudre résultat revient rien s'il sa sais sait sans sauf se semaine semble sept sera serait
ses seul seulement si signifie simplement six soit solution somme son sont soudain souvent suffit suis suit suivant
suppose supposons sur sûr ta table tandis tant te tel telle temps tes tiens toi ton tôt toujours tous tout toute toutes
très triangle trois trouve trouver trouvons tu un une utilise utiliser utilisons va valeur valeurs vers veut vérifier
vérifions veux vient voici voilà voir vois vont vos votre vous voyons vraiment vrai y zéro soustrait diviser divisé
maison père mère frère soeur enfant enfants ami amis école pommes livre livres argent eau
";

const DE: &str = "
ab aber addieren alle allem allen aller alles als also alt am an andere anderen anders anfang angenommen ans ansatz
antwort anzahl arbeit art auch auf aufgabe aus außer außerdem bald bedeutet bei beide beiden beim beispiel bekommen
bekommt berechnen berechnung besser bestimmen beträgt bevor beweis bezeichnen bin bis bist bitte bleibt brauche brauchen
braucht da dabei dadurch dafür dagegen daher dahin damit danach dann daran darauf daraus darf darin darum das dass davon
dazu dein deine dem den denen denken denn dennoch der deren des deshalb dessen dich die dies diese diesem diesen dieser
dieses differenz dir direkt division doch doppelt dort drei dreieck durch dürfen ebenfalls eben eigentlich ein eine einem
einen einer eines einfach einige einmal einsetzen einzige einzelnen ende entweder er ergebnis ergibt erhalte erhalten
erhält erst erste ersten es etwa etwas euch euer fall falls falsch fast finden findet folgende folgt form formel frage
fünf für ganz ganze geben gegeben gehen geht genau genug gerade gesamt geteilt gesucht gibt gilt gleich gleichung gleichzeitig
groß große größer größte gut hab habe haben hallo halb hat hatte hätte heißt her heute hier hin hinter höhe ich ihm ihn
ihnen ihr ihre ihrem ihren im immer in indem insgesamt ins irgendwie ist ja jahr jahre jede jedem jeden jeder jedes
jedoch jemand jetzt kann kannst kein keine keinen klar klein kleine kleiner können könnte kommen kommt konstante lang länge
lange langsam lassen lässt leicht letzte liegt links lösen löst lösung mache machen macht mal man manche mehr mein meine
mensch mich mindestens minuten mir mit möchte möglich mögliche monat multiplizieren muss müssen nach nachdem nachprüfen
nächste nämlich natürlich neben nehmen nein neu neun nicht nichts nie niemand nimmt noch nochmal null nun nur ob oben oder
ohne paar pro produkt prüfen quadrat rechnen rechnung rechts richtig sagen sagt satz schließlich schon schreiben schritt
sechs sehen sehr sei sein seine seinem seinen seiner seit seite selbst setzen sich sicher sie sieben sieht sind so sobald
sodass sofort sogar solche soll sollen sollte somit sondern sonst sowie später stelle stimmt stunde stunden subtrahieren
suchen summe tag tage tatsächlich teil teile teilen tun über überprüfen um umformen und uns unser unsere unter variable
verwenden viel viele vielleicht vier vom von vor wäre war warten wann waren warum was weder weg wegen weil weiter weitere
weiß welche welcher welches wenig weniger wenn wer werden wert werte wie wieder wieviel will wir wird wirklich wissen wo
woche wohl wollen worden wurde wurden würde wurzel zahl zahlen zehn zeigen zeit zu zuerst zum zunächst zur zurück zusammen
zwar zwei zwischen zweite haus vater mutter bruder schwester kind kinder freund schule äpfel buch geld wasser
";

const ES: &str = "
comprobamos comprobemos resolvamos restamos despejamos sustituyendo formas par impar buscado
a acerca además ahora al algo algún alguna algunas algunos allí altura ambos año años ante antes aplicar aquel aquella
aquí área así aun aún aunque ayer bajo base bastante bien bueno buscar cada calcula calcular calculamos cálculo cambio
casa casi caso cero cien cierto cinco claro comenzar como cómo comparar comprobar con considerar considera consideremos
constante contar contra correcta correcto cosa cuadrado cual cuál cuales cualquier cuando cuánto cuántos cuántas cuanto
cuatro cuestión da dada dado dan dar datos de debe deben debemos decir del demás dentro desde después despejar día días
dice dicho diez diferencia dividido dividir dividimos división doble donde dos durante e ecuación ejemplo él el ella ellas
ello ellos embargo empezar en encontrar encontramos encuentra entero entonces entre era eran eres es esa esas escribir
ese eso esos espera está están estar estamos estas este esto estos estoy etapa exactamente expresión factor falso falta
fin final forma fórmula fue fueron función ganar general gracias gran grande grupo ha había hace hacemos hacen hacer hacia
han hasta hay haya hemos hora horas hoy igual igualdad incluso incógnita inferior ir jamás junto la lado lados largo las
le lejos les llamar llega lo los luego lugar manera más mas mayor me media medio mejor menor menos mes mi mientras mil mis
misma mismo mitad modo momento mucho muchos multiplica multiplicar multiplicamos muy nada nadie necesario necesitamos ni
ningún ninguna no nos nosotros nuestra nuestro nueve nueva nuevo número números nunca o observa obtener obtenemos obtiene
ocho once operación orden otra otras otro otros para parece parte paso pasos pensar pequeño pero persona poco podemos poder
podría porque posible positivo pregunta primera primero primo problema producto pronto pues puede pueden punto que qué
queda quedan quien quién quiere raíz razón real realmente recordar recuerda regla repetir resolver resolvemos respuesta
restante restar resta resto resulta resultado sabemos saber sale se sea según segunda segundo seguro seis semana ser será
sería si sí sido siempre siete significa siguiente sin sino sobre sólo solo solución son su sumar suma sumamos supongamos
sus sustituir sustituimos tal también tampoco tan tanto te tenemos tener tengo tenía tercera tercero término ti tiempo
tiene tienen toda todas todavía todo todos tomar total trabajo tras tres triángulo tu un una unas uno unos usar usamos
usando va valor valores vamos van varios veces ver verdad verdadero verificar verificamos vez vida y ya yo padre madre
hermano hermana hijo hijos niño niños amigo amigos escuela manzanas libro libros dinero agua
";

const IT: &str = "
sostituendo ottiene risolviamo dividiamo verifichiamo lati pari dispari intero sommiamo
a abbiamo adesso ad agli ai al alcuni all'anno alla alle allora altra altre altri altro anche ancora anni anno area avere
base bene calcolare calcoliamo che chi ci ciascuno cinque ciò come con così cosa cui da dal dalla dalle dato degli dei del
della delle dello devo dieci differenza di dice dire divide diviso dobbiamo dopo dove due dunque è e ecco equazione era
esempio essere fa fare fino forma fra funzione già giorni giorno gli ha hanno ho i il in infatti infine insieme invece io
la lato le lei lo loro lui lunghezza ma maggiore mai me meno mentre mi mio molto moltiplicare moltiplichiamo nel nella
nelle nessuno niente no noi non nostro numeri numero o ogni ora ore ossia otteniamo ottenere per perché però più poi
poiché possiamo possono prima primo problema prodotto può pure qual quale quali quando quanti quanto quattro quella quello
questa queste questi questo qui quindi radice risolvere rispetto risposta risultato sapere sapiamo se sei sempre senza
sette si sia siamo sono soluzione somma sommare sono sopra sta stato su sua sugli sul sulla suo supponiamo tra tre triangolo
troviamo trovare tutta tutte tutti tutto un una uno uguale usare valore vediamo verificare verso viene volta volte vuole
";

const PT: &str = "
verificamos resolvemos dividimos multiplicamos subtraímos substituindo formas lados par ímpar inteiro somamos
a à agora ainda além algo alguma algum ali altura anos ano antes ao aos apenas aqui área as às até base bem cada calcular
cálculo casa caso cinco com como conforme considere correta da dado dados das de depois desde dessa desse deve devemos dez
dia dias diferença dividir dividido do dois dos duas e é ela elas ele eles em encontrar então entre equação era essa esse
está estão este eu exemplo fazer foi fora forma função há hora horas igual isso isto já lado lá lhe lo logo mais mas me
meio melhor menos mesmo metade meu muito multiplicar não na nas nem nenhum no nos nossa nosso nova novo número números
nunca o obter obtemos onde os ou outra outro para parte pela pelo pessoa pode podemos pois por porque portanto possível
pouco precisamos primeiro primeira problema produto qual quais qualquer quando quanto quantos quatro que quem questão raiz
razão resolver resposta resta restam resultado sabemos são se seja sem sempre ser será seu seus seis sete si sim sobre
solução soma somar sua suas substituir também tão tem temos tempo ter teria teu toda todas todo todos três triângulo tudo
um uma umas uns usar valor valores vamos ver verificar vez vezes você vocês zero
";

const NL: &str = "
oppervlakte lossen invullen zijde zijden wortel oneven geheel controleren
aan aantal af al alle alleen als altijd andere antwoord bij berekenen bijvoorbeeld daar daarna dan dat de deel delen der
deze dit doen dus door drie driehoek dubbel een één eens eerst eerste elk elke en er even gaan gaat geeft geen gegeven
gelijk getal getallen gewoon goed groter haar had heb hebben heeft heel helft hem het hier hij hoe hoeveel hoogte hun iets
ik in is ja je jij jouw juist kan kijken klein komt krijgen krijgt kunnen kwadraat laten lengte maar maken man me meer men
met mij mijn minder moet moeten na naar nemen niet niets nog nu of om omdat ons ook op oplossen oplossing over optellen per
punt samen som stap steeds stel te tegen tien toch toe tot twee uit uur van vaak veel vermenigvuldigen vergelijking vier
vijf vinden voor vraag waar waarde wanneer want waren was wat we weer wel welke werd wie wij wil wordt worden zal ze zei
zelf zes zeven zich zij zijn zo zoals zonder zou zullen
";
